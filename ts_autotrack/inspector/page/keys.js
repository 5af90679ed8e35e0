// The keyboard: one table of keys. Keys typed into a field, or with Ctrl, Alt or Meta, belong to the browser.

/**
 * Listen to keys.
 *
 * @param {Object<string, Function>} actions - By the key's name. An action that returns false leaves the key to the
 *   browser.
 */
export function listenToKeys(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const field = event.target.matches?.("input, select, textarea");
    if (field && event.key !== "Escape") return;
    const action = Object.hasOwn(actions, event.key) ? actions[event.key] : null;
    if (action && action(event) !== false) event.preventDefault();
  });
}
