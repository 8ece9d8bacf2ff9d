// Completes a login whose code comes back in the address's fragment, which no server sees.
// Load it first in <head>: until it has run, the code stands in the address bar.
"use strict";
(() => {
  const uri = {{ redirect_uri|tojson }};
  const own = uri && new URL(uri);
  const script = document.currentScript.src;
  const root = document.documentElement;
  const page = root.dataset;
  const pass = page.devkitSsoPass; // on our landing page alone

  // What only this tab knows; nothing where storage is off.
  const tab = (key, otherwise = "") => {
    try {
      return (sessionStorage[`devkit-sso-${key}`] ??= otherwise);
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
  // What stands behind our own part, if it can only be parameters; else null.
  const behind = (whole, start) => {
    const rest = whole.startsWith(start) ? whole.slice(start.length) : "#";
    return /^([?&]|$)/.test(rest) ? rest : null;
  };
  // The answer in an address, each parameter as often as it came; else null.
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
    // It is the application's turn; ask again, if need be twice.
    if (!pass) return;
    const mine = `${pass}${tab("id", Math.random())}=`;
    const asked = () => +(document.cookie.split(mine)[1]?.[0] ?? 0);
    const before = asked();
    if (before > 1) return;
    document.cookie = `${mine}${before + 1}; Max-Age=10; Path=/; SameSite=Lax`;
    if (asked() > before) location.reload();
    return;
  }

  history.replaceState(null, "", own.pathname + own.search + own.hash);
  if (!pass) {
    // Its scripts would run into a login half done. Nothing is painted without a body.
    document.write("<body>");
    stop();
  }

  // In the place of this page; its scripts don't run.
  const show = (html) => {
    const told = new DOMParser().parseFromString(html, "text/html");
    document.replaceChild(told.documentElement, root);
  };
  fetch(new URL("callback", script), {
    method: "POST",
    headers: { Accept: "text/html", "Content-Type": "application/json" },
    body: JSON.stringify({ ...answer, login: tab("login"), hash: tab("hash") }),
  })
    .then(async (response) => {
      const { headers, redirected, url } = response;
      const isPage = headers.get("Content-Type")?.startsWith("text/html");
      if (isPage && !redirected) return show(await response.text());
      const { next } = redirected ? { next: url } : await response.json();
      if (!next) throw next;
      // location.replace loads nothing where only the hash differs.
      history.replaceState(null, "", next);
      location.reload();
    })
    .catch(() => show({{ no_answer|tojson }}));
})();
