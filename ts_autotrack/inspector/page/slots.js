// A browser has six connections to one server for all its pages. Streams hold four at most: two are left for requests.

const SLOTS = ["1", "2", "3", "4"];

/**
 * Wait for a free slot; return the function that frees it. The browser frees the slots of closed pages.
 *
 * @param {AbortSignal} signal - Ends the wait. The function then waits for ever.
 */
export function takeSlot(signal) {
  if (!navigator.locks) return Promise.resolve(() => {});
  const others = new AbortController();
  signal.addEventListener("abort", () => others.abort());
  return new Promise((taken) => {
    const hold = () => {
      if (others.signal.aborted) return null; // another slot was free, too
      others.abort();
      return new Promise((free) => taken(free));
    };
    for (const slot of SLOTS) {
      navigator.locks.request(`stream ${slot}`, { signal: others.signal }, hold).catch(() => {}); // given up
    }
  });
}
