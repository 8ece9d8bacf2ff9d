// Completes a login whose code comes back in the address's fragment, which no server sees.
// Load it first in <head>: until it has run, the code stands in the address bar.
"use strict";
(() => {
  const redirectUri = {{ redirect_uri|tojson }};
  const script = document.currentScript.src;
  const page = document.documentElement.dataset;
  const ours = page.devkitSso; // "leaving", "landing", or not a page of ours

  // What only this tab knows; nothing where storage is off.
  const tab = (key, value) => {
    try {
      if (value !== undefined) sessionStorage.setItem(`devkit-sso-${key}`, value);
      return sessionStorage.getItem(`devkit-sso-${key}`) ?? "";
    } catch {
      return "";
    }
  };

  if (ours === "leaving") {
    tab("login", page.login);
    tab("hash", location.hash);
    location.replace(page.authorize);
    return;
  }

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
  // The server's answer in an address, each parameter as often as it came; else null.
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

  const own = redirectUri && new URL(redirectUri);
  const answer = own && top === self ? answerIn(new URL(location), own) : null;
  if (!answer) {
    // A visit without an answer: ask once for the application's own page instead.
    if (ours !== "landing") return;
    const pass = page.pass + (tab("id") || tab("id", Math.random().toString(36).slice(2))) + "=1";
    if (document.cookie.includes(pass)) return;
    const secure = location.protocol === "https:" ? "; Secure" : "";
    document.cookie = `${pass}; Max-Age=10; Path=/; SameSite=Lax${secure}`;
    if (document.cookie.includes(pass)) location.reload();
    return;
  }

  history.replaceState(null, "", own.pathname + own.search + own.hash);
  if (!ours) stop(); // The application's scripts would run into a login half done.

  const tell = ({ error, message, reference, login_url }) => {
    document.documentElement.dataset.reason = error;
    const make = (tag, more) => Object.assign(document.createElement(tag), more);
    const main = make("main", { lang: {{ language|tojson }} });
    const add = (tag, textContent, more) => main.append(make(tag, { textContent, ...more }));
    add("h1", message);
    const button = { href: login_url, className: "button primary" };
    if (login_url) add("a", {{ texts["action.sign_in_again"]|tojson }}, button);
    if (reference) add("p", {{ texts["page.reference"]|tojson }}.replace("{reference}", reference));
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
      // Not location.replace: where only the hash differs it would load nothing.
      history.replaceState(null, "", told.next);
      location.reload();
    })
    .catch(() => tell({ error: "server_unavailable", message: {{ texts["landing.no_answer"]|tojson }} }));
})();
