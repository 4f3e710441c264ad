(() => {
  const live = document.getElementById("live");
  const announcement = document.getElementById("announcement");
  const renew = async () => {
    try {
      const response = await fetch(location.pathname, { cache: "no-store", signal: AbortSignal.timeout(4000) });
      if (!response.ok) throw new Error(response.status);
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      const fresh = page.getElementById("live");
      // What the reader has opened stays open, and a screen reader hears of changes alone.
      for (const open of live.querySelectorAll("details[open]")) {
        const same = fresh.querySelector(`#${open.id}`);
        if (same) same.open = true;
      }
      const before = document.getElementById("headline").textContent;
      const focused = document.activeElement?.tagName === "SUMMARY";
      live.replaceChildren(...fresh.childNodes);
      if (focused) live.querySelector("summary")?.focus({ preventScroll: true });
      document.title = page.title;
      const after = document.getElementById("headline").textContent;
      if (after !== before) announcement.textContent = after;
    } catch {
      document.getElementById("lost").hidden = false;
    }
  };
  const next = async () => {
    if (!document.hidden) await renew();
    setTimeout(next, 5000);
  };
  document.addEventListener("visibilitychange", () => document.hidden || renew());
  setTimeout(next, 5000);
})();
