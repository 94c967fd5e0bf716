// The page for approvers. It holds no data of its own: everything comes through the API, and is put in as text, never as markup.
'use strict';

const $ = (id) => document.getElementById(id);
const ID = /^[0-9A-Z]{4}-[0-9A-Z]{4}$/;
// What cannot be seen, or turns what stands around it: controls, formats (bidirectional ones, zero widths), separators, private and unassigned.
const ODD = /[^\P{C}\n\t]|[\u2028\u2029\u034f\u115f\u1160\u3164\uffa0]/u;
// What a person did is shown in its card for a moment before it moves on.
const LINGER_MS = 20_000;
const SEEN_EVERY_MS = 60_000;

let me = null;
let stream = null;
let skew = 0;
const cards = new Map();

const now = () => Date.now() / 1000 + skew;
const say = (text) => { $('said').textContent = text; };

/** An element: its name with a class behind a dot, its attributes, and what is in it, which is text unless it is an element. */
function el(name, attributes, ...inside) {
  const [tag, style] = name.split('.');
  const node = document.createElement(tag);
  if (style) node.className = style;
  for (const [key, value] of Object.entries(attributes ?? {})) node.setAttribute(key, value);
  node.append(...inside.filter((one) => one !== null && one !== undefined));
  return node;
}

/** Text that others wrote: what one could not see is named in its place. */
function text(value, tag = 'span') {
  const node = el(`${tag}.text`);
  let plain = '';
  const flush = () => { if (plain) node.append(plain); plain = ''; };
  for (const c of value) {
    if (!ODD.test(c)) { plain += c; continue; }
    flush();
    node.append(el('span.odd', {}, `U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}`));
  }
  flush();
  return node;
}

function several(values, between = ', ') {
  const node = el('span');
  values.forEach((value, at) => node.append(...(at ? [between] : []), text(value)));
  return node;
}

/** A list of names and what stands behind each; what is empty is left out. */
function facts(pairs) {
  const list = el('dl');
  for (const [name, value] of pairs) {
    if (!value || (Array.isArray(value) && !value.length)) continue;
    list.append(el('dt', {}, name), el('dd', {}, Array.isArray(value) ? several(value) : typeof value === 'string' ? text(value) : value));
  }
  return list;
}

function duration(seconds) {
  const left = Math.max(0, Math.ceil(seconds));
  if (left < 120) return `${left} s`;
  const minutes = Math.round(left / 60);
  return minutes < 120 ? `${minutes} min` : `${Math.round(minutes / 60)} h`;
}

function command(one, alone) {
  const box = el('div');
  const changes = /^(update|delete)$/.test(one.kind);
  box.append(el('pre', { tabindex: '0', 'aria-label': alone ? 'Statement' : 'One of the statements' }, text(one.statement)));
  if (one.parameters.length) {
    const list = el('ol.values', { 'aria-label': 'Parameters' });
    one.parameters.forEach((value, at) => list.append(el('li', {}, el('span.number', {}, `$${at + 1} = `), value === null ? el('span.null', {}, 'NULL') : text(value))));
    box.append(list);
  }
  if (one.sent) box.append(el('p', {}, 'Because of masks this is sent in its place:'), el('pre', { tabindex: '0' }, text(one.sent)));
  if (one.cut) box.append(el('p.look', {}, 'It is longer than is shown here. Its record in the ledger is whole.'));
  if (changes && !one.has_where) box.append(el('p.look', {}, 'It has no condition: it reaches every row.'));
  return box;
}

function details(request) {
  const box = el('div');
  request.commands.forEach((one) => box.append(command(one, request.commands.length === 1)));
  if (request.in_transaction) {
    const holds = request.locks.length ? el('span', {}, ' It holds ', several(request.locks), '.') : null;
    box.append(el('p.look', {}, 'It waits inside an open transaction.', holds));
  }
  const actions = [...new Set(request.commands.flatMap((one) => one.actions))];
  const by = request.approved_by;
  box.append(facts([
    ['Why', request.reason],
    ['Does', actions],
    ['On', el('span', {}, text(request.resource), ' as ', text(request.role))],
    ['Wanted', several(request.approvers, ', and ')],
    ['Approved', by.length ? el('span.person', {}, several(by)) : 'by nobody yet'],
  ]));
  const kinds = request.commands.map((one) => `${one.kind.replaceAll('_', ' ')}, ${one.reads ? 'only reads' : 'may change something'}`);
  box.append(el('details', {}, el('summary', {}, 'More'), facts([
    ['Kind', [...new Set(kinds)].filter((kind) => !kind.startsWith(','))],
    ['Objects', request.objects],
    ['Policies', request.policies],
    ['Search path', request.search_path],
    ['Session', request.session ? String(request.session) : 'none: it was asked ahead of time'],
    ['Asked', new Date(request.asked_s * 1000).toLocaleString()],
    ['Bound to', request.digest],
  ])));
  return box;
}

const UNFIT = {
  requester: 'You asked for this, or act for whoever did, so others must answer.',
  not_a_person: 'Only a person can answer this.',
  not_a_member: 'Only members of the groups above can answer this.',
  answered: 'You have approved this. Another person must, too.',
  revoked: 'Your access was revoked.',
  forbidden: 'Policy does not let you answer.',
};
const OUTCOME = {
  granted: 'Approved.', used: 'Approved. It ran.', denied: 'Denied.', expired: 'Nobody answered in time.', cancelled: 'Whoever asked withdrew it.',
  client_left: 'Whoever asked has left.', changed: 'It is no longer what was asked for.', passed_over: 'An earlier command failed, so it did not run.',
  session_ended: 'Its session ended.',
};

function outcome(request) {
  const line = el('p.outcome', {}, OUTCOME[request.state] ?? request.state);
  line.classList.add(request.state);
  if (request.denied_by) line.append(' By ', text(request.denied_by), request.answer_reason ? ': ' : '.', request.answer_reason ? text(request.answer_reason) : '');
  else if (request.approved_by.length) line.append(' By ', several(request.approved_by), '.');
  return line;
}

async function answer(card, approve) {
  const body = { approve, reason: card.reason.value.trim() };
  const session = Number(card.scope?.value);
  if (approve && session) body.session_s = session;
  card.busy(true);
  card.problem.textContent = '';
  try {
    const reply = await fetch(`/v1/approvals/${card.id}/answers`, {
      method: 'POST', headers: { 'content-type': 'application/json', 'gatebook-proof': me.proof }, body: JSON.stringify(body),
    });
    if (reply.ok) {
      say(`${card.id}: your answer is recorded.`);
      card.update(await reply.json());
      return;
    }
    const said = await reply.json().catch(() => ({}));
    card.problem.textContent = `This does not count: ${said.detail ?? reply.status}.`;
    if (reply.status === 401) signedOut('Your session is over.');
  } catch {
    card.problem.textContent = 'The gateway could not be reached; nothing was answered. Try again.';
  }
  card.busy(false);
}

function form(card, request) {
  const key = `of-${card.id}`;
  card.reason = el('textarea', { id: `reason-${key}`, rows: '1', maxlength: '1000', autocomplete: 'off' });
  card.problem = el('p.problem', { role: 'alert' });
  const approve = el('button.approve', { type: 'button' }, 'Approve');
  const deny = el('button.deny', { type: 'button' }, 'Deny');
  const node = el('form', { 'aria-label': `Answer ${card.id}` }, el('label', { for: card.reason.id }, 'Your reason, for the ledger'), card.reason);
  if (request.session) {
    card.scope = el('select', { id: `scope-${key}` },
      el('option', { value: '0' }, 'this command, once'),
      el('option', { value: '600' }, 'also its like in the same session, for 10 min'),
      el('option', { value: '3600' }, 'also its like in the same session, for 1 h'));
    node.append(el('label', { for: card.scope.id }, 'What you approve'), card.scope);
  }
  node.append(el('div.answers', {}, deny, approve), card.problem);
  node.addEventListener('submit', (event) => event.preventDefault());
  approve.addEventListener('click', () => answer(card, true));
  deny.addEventListener('click', () => answer(card, false));
  card.busy = (busy) => { approve.disabled = busy; deny.disabled = busy; };
  return node;
}

function makeCard(request) {
  const card = { id: request.id, request: null, over: 0 };
  const who = el('h2', { id: `title-${request.id}` }, several([request.principal, ...request.through], ' → '), ' asks');
  card.left = el('span.left');
  card.bar = el('progress', { max: '1', 'aria-hidden': 'true' });
  card.body = el('div');
  card.foot = el('div');
  card.node = el('article.card', { 'aria-labelledby': who.id, id: request.id }, el('header', {}, el('span.id', {}, request.id), card.left), card.bar, who, card.body, card.foot);
  card.update = (next) => {
    const before = card.request;
    // What the stream told meanwhile may be newer than an answer's own reply.
    if (before && before.state !== 'pending' && next.state === 'pending') return;
    const same = before && JSON.stringify({ ...before, unfit: 0 }) === JSON.stringify({ ...next, unfit: 0 });
    card.request = next;
    if (!same) {
      const open = card.body.querySelector('details')?.open;
      card.body.replaceChildren(details(next));
      if (open) card.body.querySelector('details').open = true;
    }
    if (next.state !== 'pending') {
      if (!card.over) {
        card.over = Date.now();
        card.node.classList.add('over');
        say(`${card.id}: ${OUTCOME[next.state] ?? next.state}`);
      }
      card.foot.replaceChildren(outcome(next));
    } else if (next.unfit && UNFIT[next.unfit]) {
      card.foot.replaceChildren(el('p.unfit', {}, UNFIT[next.unfit]));
      card.answering = false;
    } else if (!card.answering) {
      card.answering = true;
      card.foot.replaceChildren(form(card, next));
    }
    tick(card);
  };
  card.update(request);
  return card;
}

function tick(card) {
  const { asked_s, until_s, state } = card.request;
  const left = until_s - now();
  card.left.textContent = state === 'pending' ? `${duration(left)} left` : '';
  card.left.classList.toggle('soon', left < 60);
  card.bar.hidden = state !== 'pending';
  card.bar.value = Math.max(0, Math.min(1, left / Math.max(1, until_s - asked_s)));
}

function lately(request) {
  const first = request.commands[0]?.statement ?? '';
  const shown = first.length > 120 ? `${first.slice(0, 120)}…` : first;
  const by = request.denied_by ? [request.denied_by] : request.approved_by;
  return el('li', {}, `${request.id} · `, text(request.principal), ` · ${OUTCOME[request.state] ?? request.state}`, by.length ? ' By ' : '', by.length ? several(by) : '', el('br'), text(shown, 'code'));
}

let known = [];
function render() {
  const waiting = known.filter((request) => request.state === 'pending');
  for (const request of known) {
    const card = cards.get(request.id);
    if (card) card.update(request);
    else if (request.state === 'pending' && ID.test(request.id)) {
      const made = makeCard(request);
      cards.set(request.id, made);
      $('waiting').append(made.node);
      say(`New request ${request.id} by ${request.principal}`);
    }
  }
  for (const [id, card] of cards) {
    const gone = !known.some((request) => request.id === id);
    if (gone || (card.over && Date.now() - card.over > LINGER_MS && !card.node.contains(document.activeElement))) {
      card.node.remove();
      cards.delete(id);
    }
  }
  const past = known.filter((request) => request.state !== 'pending' && !cards.has(request.id)).slice(-30).reverse();
  $('lately').replaceChildren(...past.map(lately));
  $('past').hidden = !past.length;
  $('nothing').hidden = cards.size > 0;
  document.title = waiting.length ? `(${waiting.length}) Approvals · Gatebook` : 'Approvals · Gatebook';
  show(wanted());
}

/** A link to one request (`/#7Q5K-M2XW`) survives the way to the issuer and back. */
function wanted() {
  const here = location.hash.slice(1).toUpperCase();
  if (ID.test(here)) return here;
  const kept = sessionStorage.getItem('wanted') ?? '';
  return ID.test(kept) ? kept : null;
}

let shownAlready = null;
function show(id) {
  const card = id && cards.get(id);
  if (!card || shownAlready === id) return;
  shownAlready = id;
  sessionStorage.removeItem('wanted');
  card.node.scrollIntoView({ block: 'start' });
}

function signedOut(why) {
  me = null;
  stream?.close();
  stream = null;
  known = [];
  cards.clear();
  $('waiting').replaceChildren();
  $('lately').replaceChildren();
  $('list').hidden = true;
  $('who').hidden = true;
  $('door').hidden = false;
  if (why) $('why').textContent = why;
  document.title = 'Approvals · Gatebook';
  say('');
}

async function start() {
  let reply;
  try {
    reply = await fetch('/login/session');
  } catch {
    say('The gateway cannot be reached. Trying again …');
    setTimeout(start, 3000);
    return;
  }
  if (!reply.ok) {
    signedOut(me ? 'Your session is over.' : '');
    return;
  }
  me = await reply.json();
  skew = me.now_s + 0.5 - Date.now() / 1000;
  $('name').replaceChildren(text(me.name));
  $('name').title = me.principal;
  $('door').hidden = true;
  $('who').hidden = false;
  $('list').hidden = false;
  follow();
}

function follow() {
  stream?.close();
  stream = new EventSource('/v1/approvals/live');
  stream.addEventListener('approvals', (event) => {
    if (!me) return;
    if ($('said').textContent.startsWith('The gateway')) say('');
    known = JSON.parse(event.data).approvals;
    render();
  });
  stream.addEventListener('error', async () => {
    if (!me || stream.readyState !== EventSource.CLOSED) {
      if (me) say('The gateway cannot be reached. Trying again …');
      return;
    }
    // It said no: because the session is over, or because policy no longer lets its person look.
    const reply = await fetch('/v1/approvals').catch(() => null);
    if (reply?.status === 403) {
      say('You may not see requests for approval any more. Ask the operators of this gateway.');
      known = [];
      render();
    } else {
      setTimeout(start, reply ? 500 : 3000);
    }
  });
}

$('leave').addEventListener('click', async () => {
  const reply = await fetch('/logout', { method: 'POST', headers: { 'gatebook-proof': me.proof } }).catch(() => null);
  if (reply?.ok || reply?.status === 401) signedOut('You are signed out.');
  else say('Signing out did not work. Try again.');
});
$('enter').addEventListener('click', () => { if (wanted()) sessionStorage.setItem('wanted', wanted()); });
addEventListener('hashchange', () => { shownAlready = null; show(wanted()); });
setInterval(() => {
  if (!me) return;
  cards.forEach(tick);
  if ([...cards.values()].some((card) => card.over)) render();
}, 1000);

// A session ends when nobody is there: whoever types, taps or scrolls is.
let seen = Date.now();
for (const event of ['pointerdown', 'keydown', 'wheel', 'touchmove']) {
  addEventListener(event, () => {
    if (!me || Date.now() - seen < SEEN_EVERY_MS) return;
    seen = Date.now();
    fetch('/login/session').catch(() => {});
  }, { passive: true });
}
start();
