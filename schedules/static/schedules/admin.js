/* What the pages do beside what the server renders: times in the reader's zone, copying, following runs that are in
   flight, and help while a schedule's form is filled in. Everything works without it, with less comfort. */
"use strict";

(() => {
  document.documentElement.classList.add("scripted");

  // --- times: the server writes UTC, which stays in the hint

  const dateAndTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  const withSeconds = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
  const distance = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });
  const units = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];

  function distanceText(moment) {
    const seconds = Math.round((moment - Date.now()) / 1000);
    const [unit, size] = units.find(([, size]) => Math.abs(seconds) >= size) || units[3];
    return distance.format(Math.trunc(seconds / size), unit);
  }

  function localize(root) {
    for (const element of root.querySelectorAll("time[data-moment]")) {
      const moment = new Date(element.dateTime);
      element.textContent = (element.dataset.moment ? withSeconds : dateAndTime).format(moment);
    }
    for (const element of root.querySelectorAll("[data-clock]")) {
      element.textContent = clock.format(new Date(element.dataset.clock));
    }
    tellDistances(root);
  }

  function tellDistances(root) {
    for (const element of root.querySelectorAll("[data-distance]")) {
      element.textContent = distanceText(new Date(element.dataset.distance));
    }
  }

  // --- copy buttons

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const words = button.textContent;
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      // No clipboard here, e.g. without HTTPS: leave it selected for Ctrl-C.
      source.closest("details")?.setAttribute("open", "");
      getSelection().selectAllChildren(source);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = words; }, 2000);
  });

  // --- a form is sent once: what is pressed while its answer is on the way would do it twice

  const patience = 30000;

  document.addEventListener("submit", (event) => {
    const form = event.target;
    // Not form.method: a field may have that name.
    if (event.defaultPrevented || (form.getAttribute("method") || "get").toLowerCase() !== "post") return;
    if (form.hasAttribute("aria-busy")) {
      event.preventDefault();
      return;
    }
    const busy = [form, event.submitter].filter(Boolean);
    for (const element of busy) element.setAttribute("aria-busy", "true");
    // Whoever stops the loading stays on this page.
    setTimeout(() => { for (const element of busy) element.removeAttribute("aria-busy"); }, patience);
  });
  addEventListener("pageshow", () => {
    for (const element of document.querySelectorAll("form[aria-busy], button[aria-busy], input[aria-busy]")) {
      element.removeAttribute("aria-busy");
    }
  });

  // --- menus

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-menu]");
    if (button) {
      const open = document.getElementById("places").classList.toggle("is-open");
      button.setAttribute("aria-expanded", String(open));
    }
    for (const menu of document.querySelectorAll("[data-dropdown][open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const menu of document.querySelectorAll("[data-dropdown][open]")) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });

  // --- following what is in flight: the same page again, its live parts put in place

  const followEvery = 2000;

  async function follow() {
    if (!document.hidden) {
      try {
        const answer = await fetch(location.href, { credentials: "same-origin" });
        if (answer.ok && !answer.redirected) {
          replaceLive(new DOMParser().parseFromString(await answer.text(), "text/html"));
        }
      } catch {
        // The server is away for a moment; asked again.
      }
    }
    if (document.querySelector("[data-live-active]")) setTimeout(follow, followEvery);
  }

  // What came last for each live part, as it came: what is shown has local times in it, and what was opened.
  const received = new Map();

  function asReceived(part) {
    const copy = part.cloneNode(true);
    // The page counts distances by itself.
    for (const element of copy.querySelectorAll("[data-distance]")) element.textContent = "";
    return copy.outerHTML;
  }

  function rememberLive() {
    for (const part of document.querySelectorAll("[data-live]")) received.set(part.id, asReceived(part));
  }

  function replaceLive(fresh) {
    for (const old of document.querySelectorAll("[data-live]")) {
      const replacement = fresh.getElementById(old.id);
      // A button that was pressed goes on being the one that was pressed.
      if (!replacement || old.querySelector("[aria-busy]")) continue;
      const text = asReceived(replacement);
      if (received.get(old.id) === text) continue;
      received.set(old.id, text);
      const restore = rememberState(old);
      old.replaceWith(document.adoptNode(replacement));
      localize(replacement);
      restore(replacement);
    }
  }

  // What the reader has done to a part: opened, scrolled, put the focus into. Returns what does it to another one.
  function rememberState(old) {
    const scrollable = "pre, .scroll, .chart-frame";
    const opened = [...old.querySelectorAll("details")].map((element) => element.open);
    const scrolled = [...old.querySelectorAll(scrollable)].map((element) => ({
      left: element.scrollLeft,
      top: element.scrollTop,
      isAtEnd: element.scrollLeft + element.clientWidth >= element.scrollWidth - 1,
    }));
    const focused = old.contains(document.activeElement) ? likeness(document.activeElement) : "";
    return (part) => {
      part.querySelectorAll("details").forEach((element, index) => { element.open = Boolean(opened[index]); });
      part.querySelectorAll(scrollable).forEach((element, index) => {
        if (!scrolled[index]) return;
        element.scrollTop = scrolled[index].top;
        element.scrollLeft = scrolled[index].isAtEnd ? element.scrollWidth : scrolled[index].left;
      });
      if (!focused) return;
      const same = [...part.querySelectorAll("a, button, summary, input, select, [tabindex]")].find((element) => likeness(element) === focused);
      if (!same) part.tabIndex = -1;
      (same || part).focus({ preventScroll: true });
    };
  }

  function likeness(element) {
    const attributes = ["id", "href", "name", "value", "formaction", "aria-label", "data-copy"];
    return [element.tagName, ...attributes.map((name) => element.getAttribute(name))].join(" ");
  }

  // --- the preview beside the form

  function showPreview(box) {
    const form = box.closest("form");
    let newest = 0;
    let waiting;
    async function ask() {
      const number = ++newest;
      const chosen = form.elements.install?.value || box.dataset.install;
      if (!chosen) return;
      const query = new URLSearchParams({
        install: chosen,
        cron: form.elements.cron.value,
        timezone: form.elements.timezone.value,
        schedule: box.dataset.schedule,
      });
      try {
        const answer = await fetch(`${box.dataset.preview}?${query}`, { credentials: "same-origin" });
        if (!answer.ok || number !== newest) return;
        if (answer.redirected) {
          const words = document.createElement("p");
          words.textContent = "You are signed out. Sign in in another tab, then go on here.";
          box.replaceChildren(words);
          return;
        }
        const part = new DOMParser().parseFromString(await answer.text(), "text/html");
        box.replaceChildren(...part.body.childNodes);
        localize(box);
      } catch {
        // The next key asks again.
      }
    }
    for (const name of ["cron", "timezone"]) {
      form.elements[name].addEventListener("input", () => {
        clearTimeout(waiting);
        waiting = setTimeout(ask, 200);
      });
    }
    form.elements.install?.addEventListener?.("change", ask);
    if (form.elements.cron.value) ask();
  }

  // --- JSON

  function helpWithJson(area) {
    const tools = document.createElement("div");
    tools.className = "json-tools";
    const button = document.createElement("button");
    button.type = "button";
    button.className = "btn small";
    button.textContent = "Format";
    const state = document.createElement("span");
    state.className = "json-state";
    state.setAttribute("role", "status");
    tools.append(button, state);
    area.after(tools);
    function check() {
      const text = area.value.trim();
      state.className = "json-state";
      state.textContent = "";
      button.disabled = true;
      if (!text) return;
      let value;
      try {
        value = JSON.parse(text);
      } catch (error) {
        state.classList.add("bad");
        state.textContent = `Not valid JSON yet: ${error.message}`;
        return;
      }
      const fits = typeof value === "object" && value !== null;
      state.classList.add(fits ? "good" : "bad");
      state.textContent = fits ? "Valid JSON" : "It must be an object or an array";
      button.disabled = !fits;
    }
    area.addEventListener("input", check);
    button.addEventListener("click", () => { area.value = indented(area.value); });
    check();
  }

  // Valid JSON, one member a line. Nothing but white space changes: a value that was read and written again could be
  // another one, such as a number with more digits than a script keeps.
  function indented(text) {
    const tokens = text.match(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g) || [];
    let depth = 0;
    const line = () => `\n${"  ".repeat(Math.min(depth, 40))}`;
    const parts = tokens.map((token, index) => {
      if (token === "{" || token === "[") {
        depth += 1;
        return "]}".includes(tokens[index + 1]) ? token : token + line();
      }
      if (token === "}" || token === "]") {
        depth -= 1;
        return "[{".includes(tokens[index - 1]) ? token : line() + token;
      }
      if (token === ",") return token + line();
      return token === ":" ? ": " : token;
    });
    return parts.join("");
  }

  // --- a select with type-ahead, by the ARIA pattern of a combobox with a list

  function makeCombobox(select) {
    const label = document.querySelector(`label[for="${select.id}"]`);
    const box = document.createElement("div");
    box.className = "combobox";
    const input = document.createElement("input");
    const list = document.createElement("ul");
    input.type = "text";
    input.id = `${select.id}_filter`;
    input.autocomplete = "off";
    input.spellcheck = false;
    input.placeholder = "Type to search";
    list.id = `${select.id}_list`;
    list.hidden = true;
    list.setAttribute("role", "listbox");
    list.setAttribute("aria-label", label.textContent.replace(/:$/, ""));
    for (const [name, value] of [["role", "combobox"], ["aria-expanded", "false"], ["aria-controls", list.id], ["aria-autocomplete", "list"]]) {
      input.setAttribute(name, value);
    }
    const described = select.getAttribute("aria-describedby");
    if (described) input.setAttribute("aria-describedby", described);
    if (select.getAttribute("aria-invalid")) input.setAttribute("aria-invalid", "true");
    label.htmlFor = input.id;
    select.hidden = true;
    select.before(box);
    box.append(input, list);
    const options = [...select.options].filter((option) => option.value || option.disabled);
    const chosenText = () => (select.selectedIndex >= 0 && select.value ? select.options[select.selectedIndex].text.trim() : "");
    let active = -1;
    let isTyped = false;

    function items() {
      return [...list.children].filter((item) => item.getAttribute("aria-disabled") !== "true");
    }
    function fill(text) {
      const words = text.toLowerCase().split(/\s+/).filter(Boolean);
      const found = options.filter((option) => words.every((word) => option.text.toLowerCase().includes(word)));
      list.replaceChildren(...found.map((option, index) => {
        const item = document.createElement("li");
        item.id = `${list.id}_${index}`;
        item.setAttribute("role", "option");
        item.setAttribute("aria-selected", "false");
        const [name, ...reason] = option.text.trim().split(": ");
        item.textContent = name;
        if (option.disabled) {
          item.setAttribute("aria-disabled", "true");
          const why = document.createElement("span");
          why.textContent = `Cannot be scheduled: ${reason.join(": ")}`;
          item.append(why);
        } else {
          item.textContent = option.text.trim();
          item.dataset.value = option.value;
        }
        return item;
      }));
      if (!found.length) {
        const item = document.createElement("li");
        item.setAttribute("role", "option");
        item.setAttribute("aria-disabled", "true");
        item.setAttribute("aria-selected", "false");
        item.textContent = "Nothing fits";
        list.append(item);
      }
      active = -1;
      input.removeAttribute("aria-activedescendant");
    }
    function open(text) {
      fill(text);
      list.hidden = false;
      input.setAttribute("aria-expanded", "true");
    }
    function close() {
      list.hidden = true;
      input.setAttribute("aria-expanded", "false");
      input.removeAttribute("aria-activedescendant");
      input.value = chosenText();
      isTyped = false;
    }
    function choose(item) {
      if (!item?.dataset.value) return;
      select.value = item.dataset.value;
      select.dispatchEvent(new Event("change", { bubbles: true }));
      close();
    }
    function move(step) {
      const choices = items();
      if (!choices.length) return;
      choices[active]?.setAttribute("aria-selected", "false");
      active = (active + step + choices.length) % choices.length;
      choices[active].setAttribute("aria-selected", "true");
      choices[active].scrollIntoView({ block: "nearest" });
      input.setAttribute("aria-activedescendant", choices[active].id);
    }
    input.addEventListener("focus", () => input.select());
    input.addEventListener("click", () => { if (list.hidden) open(""); });
    input.addEventListener("input", () => {
      isTyped = Boolean(input.value.trim());
      open(input.value);
    });
    input.addEventListener("blur", () => {
      const choices = items();
      // Whoever has typed enough to mean one of them means it.
      if (isTyped && !list.hidden && choices.length === 1) choose(choices[0]);
      else close();
    });
    input.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown" || event.key === "ArrowUp") {
        event.preventDefault();
        if (list.hidden) open("");
        move(event.key === "ArrowDown" ? 1 : active < 0 ? 0 : -1);
      } else if (event.key === "Enter" && !list.hidden) {
        event.preventDefault();
        const choices = items();
        choose(active >= 0 ? choices[active] : choices.length === 1 ? choices[0] : undefined);
      } else if (event.key === "Escape" && !list.hidden) {
        event.stopPropagation();
        close();
      }
    });
    // Before the field loses its focus, which closes the list.
    list.addEventListener("mousedown", (event) => {
      event.preventDefault();
      choose(event.target.closest("li"));
    });
    input.value = chosenText();
  }

  document.addEventListener("DOMContentLoaded", () => {
    rememberLive();
    localize(document);
    setInterval(() => tellDistances(document), 15000);
    document.querySelectorAll("[data-preview]").forEach(showPreview);
    document.querySelectorAll("textarea[data-json]").forEach(helpWithJson);
    document.querySelectorAll("select[data-combobox]").forEach(makeCombobox);
    if (document.querySelector("[data-live-active]")) setTimeout(follow, followEvery);
    // Above the list, filters would push it off the screen; those that filter stay open.
    if (innerWidth <= 1100) {
      for (const element of document.querySelectorAll("#changelist-filter details")) {
        element.open = Boolean(element.querySelector("li.selected:not(:first-child)"));
      }
    }
    // Charts whose right end is now.
    for (const element of document.querySelectorAll(".chart-frame:has(> svg.chart)")) element.scrollLeft = element.scrollWidth;
    // A form that came back with errors begins at the first of them.
    document.querySelector(".errors input:not([type=hidden]), .errors select:not([hidden]), .errors textarea")?.focus();
  });
})();
