// Completes a login whose code is in the URL fragment, which servers do not see.
// Load this script first in <head>: until it has run, the code is in the address bar.
"use strict";
(() => {
  const redirectUri = {{ redirect_uri|tojson }};
  const uri = redirectUri && new URL(redirectUri);
  const script = document.currentScript.src;
  const root = document.documentElement;
  const skipCookie = root.dataset.devkitSsoPass; // set on the landing page only

  // Return what this tab has stored, or "" if storage is off.
  const stored = (key, initial = "") => {
    try {
      return (sessionStorage[`devkit-sso-${key}`] ??= initial);
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
  // Return the parameters after `start`, or null.
  const after = (text, start) => {
    const rest = text.startsWith(start) ? text.slice(start.length) : "#";
    return /^([?&]|$)/.test(rest) ? rest : null;
  };
  // Return all parameters of an authorization response, or null if there is none.
  const parse = ({ origin, pathname, search, hash }) => {
    if (origin !== uri.origin || pathname !== uri.pathname) return null;
    const query = after(search, uri.search);
    // Ignore a hash that the redirect URI lacks: redirects keep it.
    const tail = uri.hash && after(hash, uri.hash);
    if (query === null || tail === null) return null;
    const params = { code: [], error: [], state: [], s: [] };
    for (const pair of (query + tail).split(/[?&]/)) {
      const [name, ...value] = pair.split("=");
      if (Object.hasOwn(params, name)) params[name].push(decode(value.join("=")));
    }
    return params.code.length + params.error.length ? params : null;
  };

  const params = uri && top === self ? parse(location) : null;
  if (!params) {
    // Reload to show the application's own page, at most twice.
    if (!skipCookie) return;
    const prefix = `${skipCookie}${stored("id", Math.random())}=`;
    const reloads = () => +(document.cookie.split(prefix)[1]?.[0] ?? 0);
    const before = reloads();
    if (before > 1) return;
    document.cookie = `${prefix}${before + 1}; Max-Age=10; Path=/; SameSite=Lax`;
    if (reloads() > before) location.reload();
    return;
  }

  history.replaceState(null, "", uri.pathname + uri.search + uri.hash);
  if (!skipCookie) {
    // Stop the application's scripts. Browsers paint nothing without a body.
    document.write("<body>");
    stop();
  }

  // Replace this page. Scripts in `html` do not run.
  const show = (html) => {
    const page = new DOMParser().parseFromString(html, "text/html");
    document.replaceChild(page.documentElement, root);
  };
  fetch(new URL("callback", script), {
    method: "POST",
    headers: { Accept: "text/html", "Content-Type": "application/json" },
    body: JSON.stringify({ ...params, login: stored("login"), hash: stored("hash") }),
  })
    .then(async (response) => {
      const { headers, redirected, url } = response;
      const isPage = headers.get("Content-Type")?.startsWith("text/html");
      if (isPage && !redirected) return show(await response.text());
      const { next } = redirected ? { next: url } : await response.json();
      if (!next) throw next;
      // location.replace() loads nothing if only the hash differs.
      history.replaceState(null, "", next);
      location.reload();
    })
    .catch(() => show({{ no_answer|tojson }}));
})();
