// Completes a login whose code comes back in the address's fragment, which no server sees.
// Load it first in <head>: until it has run, the code stands in the address bar.
"use strict";
(() => {
  const uri = {{ redirect_uri|tojson }};
  const own = uri && new URL(uri);
  const script = document.currentScript.src;
  const page = document.documentElement.dataset;
  const ours = page.devkitSso; // "leaving", "landing", or not a page of ours

  // What only this tab knows; nothing where storage is off.
  const tab = (key, value) => {
    const name = `devkit-sso-${key}`;
    try {
      if (value !== undefined) sessionStorage.setItem(name, value);
      return sessionStorage.getItem(name) ?? "";
    } catch {
      return "";
    }
  };

  if (ours === "leaving") {
    tab("login", page.login);
    tab("hash", location.hash);
    // The cookies have to be where the way back leads.
    const there = location.href.replace(location.origin, own.origin);
    location.replace(own.origin === location.origin ? page.authorize : there);
    return;
  }

  const decode = (text) => {
    try {
      return decodeURIComponent(text);
    } catch {
      return text;
    }
  };
  // What stands behind our own part, if it can only be parameters; else null.
  const behind = (whole, start) => {
    const rest = whole.startsWith(start) ? whole.slice(start.length) : "#";
    return /^([?&]|$)/.test(rest) ? rest : null;
  };
  // The server's answer in the address, each parameter as often as it came; null if there is none.
  const read = ({ origin, pathname, search, hash }) => {
    if (origin !== own.origin || pathname !== own.pathname) return null;
    const query = behind(search, own.search);
    // Where ours has none, a redirect may have carried a hash route along.
    const tail = own.hash && behind(hash, own.hash);
    if (query === null || tail === null) return null;
    const answer = { code: [], error: [], state: [], s: [] };
    for (const pair of (query + tail).split(/[?&]/)) {
      const [name, ...value] = pair.split("=");
      if (Object.hasOwn(answer, name)) answer[name].push(decode(value.join("=")));
    }
    return answer.code.length + answer.error.length ? answer : null;
  };

  const answer = own && top === self ? read(location) : null;
  if (!answer) {
    // Ask for the application's own page instead, if need be twice.
    if (ours !== "landing") return;
    const pass = `${page.pass}${tab("id") || tab("id", Math.random().toString(36).slice(2))}=`;
    const asked = () => Number(document.cookie.split(pass)[1]?.[0] ?? 0);
    const before = asked();
    if (before > 1) return;
    document.cookie = `${pass}${before + 1}; Max-Age=10; Path=/; SameSite=Lax`;
    if (asked() > before) location.reload();
    return;
  }

  history.replaceState(null, "", own.pathname + own.search + own.hash);
  if (!ours) stop(); // Its scripts would run into a login half done.

  const tell = ({ error, message, reference, login_url }) => {
    document.documentElement.dataset.reason = error;
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
      // location.replace would load nothing where only the hash differs.
      history.replaceState(null, "", told.next);
      location.reload();
    })
    .catch(() => tell({ error: "server_unavailable", message: "This site does not answer." }));
})();
