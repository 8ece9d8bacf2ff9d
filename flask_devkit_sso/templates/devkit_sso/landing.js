// Completes a login whose code comes back in the address's fragment, which no server sees.
// Load it first in <head>: until it has run, the code stands in the address bar.
"use strict";
(() => {
  const uri = {{ redirect_uri|tojson }};
  const script = document.currentScript.src;
  const page = document.documentElement.dataset;
  const ours = page.devkitSso; // "leaving", "landing", or none of ours

  // What only this tab knows; nothing where storage is off.
  const tab = (key, value) => {
    try {
      if (value !== undefined) sessionStorage.setItem(`devkit-sso-${key}`, value);
      return sessionStorage.getItem(`devkit-sso-${key}`) ?? "";
    } catch {
      return "";
    }
  };

  const decode = (text) => {
    try {
      return decodeURIComponent(text);
    } catch {
      return text;
    }
  };
  // What stands behind our own part, where it can only be parameters; else null.
  const behind = (whole, own) => {
    const rest = whole.startsWith(own) ? whole.slice(own.length) : "#";
    return /^([?&]|$)/.test(rest) ? rest : null;
  };
  // The answer in an address, each parameter as often as it came; null if there is none.
  const answerIn = (address, own) => {
    if (address.origin !== own.origin || address.pathname !== own.pathname) return null;
    const query = behind(address.search, own.search);
    const tail = behind(address.hash, own.hash);
    if (query === null || tail === null) return null;
    const answer = { code: [], error: [], state: [], s: [] };
    for (const pair of (query + tail).split(/[?&]/)) {
      const [name, ...value] = pair.split("=");
      if (Object.hasOwn(answer, name)) answer[name].push(decode(value.join("=")));
    }
    return answer.code.length + answer.error.length ? answer : null;
  };

  const own = uri && new URL(uri);
  if (ours === "leaving") {
    document.cookie = "devkit_sso_probe=1; Max-Age=1";
    const back = answerIn(new URL(location.hash, own), own) ? "1" : "";
    // No cookies, or an answer that no cookie fits, twice: no loop.
    const lost = !document.cookie.includes("sso_probe") || (back && tab("back"));
    tab("back", back);
    tab("login", page.login);
    tab("hash", location.hash);
    location.replace(lost ? "?lost" : page.authorize);
    return;
  }

  const answer = own && top === self ? answerIn(new URL(location), own) : null;
  if (!answer) {
    // A visit without an answer: ask once for the application's page.
    if (ours !== "landing") return;
    const pass = page.pass + (tab("id") || tab("id", Math.random().toString(36))) + "=1";
    if (document.cookie.includes(pass)) return;
    const secure = location.protocol === "https:" ? "; Secure" : "";
    document.cookie = `${pass}; Max-Age=10; Path=/; SameSite=Lax${secure}`;
    if (document.cookie.includes(pass)) location.reload();
    return;
  }

  history.replaceState(null, "", own.pathname + own.search + own.hash);
  if (!ours) stop(); // The application's scripts would run into a login half done.

  const tell = ({ error, message, reference, login_url }) => {
    page.reason = error;
    const main = document.createElement("main");
    const add = (tag, text, more) => {
      if (text) main.append(Object.assign(document.createElement(tag), { textContent: text }, more));
    };
    add("h1", message);
    add("p", reference && `Reference: ${reference}`);
    add("a", login_url && "Sign in again", { href: login_url });
    (document.body ?? document.documentElement).replaceChildren(main);
  };
  fetch(new URL("callback", script), {
    method: "POST",
    headers: { Accept: "application/json", "Content-Type": "application/json" },
    body: JSON.stringify({ ...answer, login: tab("login"), hash: tab("hash") }),
  })
    .then(async (response) => {
      const told = await response.json();
      if (!response.ok) return tell(told);
      // location.replace loads nothing where only the hash differs.
      history.replaceState(null, "", told.next);
      location.reload();
    })
    .catch(() => tell({ error: "server_unavailable", message: "This site does not answer." }));
})();
