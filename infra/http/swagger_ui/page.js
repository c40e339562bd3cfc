// What "Authorize" was given outlives a reload, not the tab. Swagger UI itself would keep it in localStorage, for good.
const KEPT = "authorized";

const keepForTheTab = () => ({
  statePlugins: {
    auth: {
      wrapActions: {
        persistAuthorizationIfNeeded: (_, system) => () =>
          sessionStorage.setItem(KEPT, JSON.stringify(system.authSelectors.authorized())),
      },
    },
  },
});

const ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#page",
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null,
  plugins: [keepForTheTab],
  onComplete: () => {
    const kept = sessionStorage.getItem(KEPT);
    if (kept) ui.authActions.restoreAuthorization({ authorized: JSON.parse(kept) });
  },
});
