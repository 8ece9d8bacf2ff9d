// Runs on the page that leads to the sign-in service. It stores what only this browser knows, and
// checks that the browser can come back with its cookies. See the view `login`.
"use strict";
(() => {
  const { authorize, login, redirectUri } = document.documentElement.dataset;
  const { origin } = new URL(redirectUri);
  const { hash, href } = location;

  // The cookies have to be set on the origin that the browser comes back to.
  if (location.origin !== origin) return location.replace(href.replace(location.origin, origin));

  // Show an error instead of looping if cookies are off, or if an authorization response has come
  // back twice without the cookie of its login.
  document.cookie = "devkit_sso_probe=1; Max-Age=1; SameSite=Lax";
  let cookiesLost = !document.cookie.includes("devkit_sso_probe=1");
  const answer = /[?&#](code|error)=/.test(hash) ? "1" : "";
  try {
    cookiesLost ||= Boolean(answer && sessionStorage["devkit-sso-answer"]);
    // An authorization response in the hash is no part of the page's address. The login comes last: if
    // there is no room for the hash, an older one must not belong to it.
    const items = { answer, hash: answer ? "" : hash, login };
    for (const [key, value] of Object.entries(items)) sessionStorage[`devkit-sso-${key}`] = value;
  } catch {
    // Storage is off. The login works, but it cannot return to the requested hash route.
  }
  location.replace(cookiesLost ? "?lost" : authorize);
})();
