// Runs on the page whose button starts a login. Only the browser knows the hash of the requested page:
// pass it on to the page that follows. See the view `login`.
"use strict";
document.forms[0].action += location.hash;
