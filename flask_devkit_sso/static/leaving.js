// On the way out to the sign-in server: remembers what only this browser knows, and sees to it that
// the way back can work. The page is views.login's.
"use strict";
(() => {
  const { authorize, login, redirectUri } = document.documentElement.dataset;
  const { origin } = new URL(redirectUri);
  const { hash, href } = location;

  // The cookies have to be where the way back leads.
  if (location.origin !== origin) return location.replace(href.replace(location.origin, origin));

  // No cookies, or twice the answer of a login that no cookie fits: told, before it is a loop.
  document.cookie = "devkit_sso_probe=1; Max-Age=1; SameSite=Lax";
  let lost = !document.cookie.includes("devkit_sso_probe=1");
  const answer = /[?&](code|error)=/.test(hash) ? "1" : "";
  try {
    lost ||= Boolean(answer && sessionStorage["devkit-sso-answer"]);
    for (const [key, value] of Object.entries({ answer, hash, login })) {
      sessionStorage[`devkit-sso-${key}`] = value;
    }
  } catch {
    // Storage is off: the hash route that was asked for is lost, the login is not.
  }
  location.replace(lost ? "?lost" : authorize);
})();
