// driver.mjs MODULES CHROMIUM RULES: drives a real browser. It prints `ready`, then reads orders from its standard input, one JSON object a line,
// and answers each by one: `{"number": N, "value": …}` or `{"number": N, "failed": "…"}`. It ends when its input does, and the browser with it.
//
// MODULES is the node_modules folder that tests/setup filled; RULES are Chromium's `--host-resolver-rules`, so that the name in a gateway's
// configuration leads to its port. Certificates of the tests' own authorities are taken: what is judged here is the page, and not TLS.
import path from 'node:path';
import readline from 'node:readline';
import { pathToFileURL } from 'node:url';

const [modules, chromium, rules] = process.argv.slice(2);
const { chromium: launcher } = (await import(pathToFileURL(path.join(modules, 'playwright-core/index.js')))).default;
const WAIT_MS = 120_000;

const browser = await launcher.launch({
  executablePath: chromium, timeout: WAIT_MS,
  // As root, as in a container, there is no sandbox to be had.
  args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu', '--no-first-run', `--host-resolver-rules=${rules}`],
});
let page;
let complaints;

const orders = {
  page: async ({ width, height, dark }) => {
    await page?.context().close();
    const context = await browser.newContext({
      ignoreHTTPSErrors: true, viewport: { width, height }, colorScheme: dark ? 'dark' : 'light', deviceScaleFactor: process.env.GATEBOOK_PICTURES ? 2 : 1,
      isMobile: width < 600, hasTouch: width < 600, locale: 'en-GB', timezoneId: 'UTC', reducedMotion: 'reduce',
    });
    complaints = [];
    page = await context.newPage();
    page.setDefaultTimeout(WAIT_MS);
    page.on('pageerror', (error) => complaints.push(`error: ${error.message}`));
    page.on('dialog', (dialog) => { complaints.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
    page.on('console', (message) => { if (message.type() === 'error' && /Content Security Policy|TrustedHTML|Refused/.test(message.text())) complaints.push(`console: ${message.text()}`); });
  },
  go: async ({ url }) => { await page.goto(url); },
  click: async ({ selector }) => { await page.locator(selector).first().click(); },
  fill: async ({ selector, text }) => { await page.locator(selector).first().fill(text); },
  type: async ({ text }) => { await page.keyboard.type(text); },
  press: async ({ key }) => { await page.keyboard.press(key); },
  see: async ({ selector }) => { await page.locator(selector).first().waitFor({ state: 'visible' }); },
  text: async ({ selector }) => page.locator(selector).first().innerText(),
  count: async ({ selector }) => page.locator(selector).count(),
  value: async ({ expression }) => (await page.evaluate(expression)) ?? null,
  cookies: async () => page.context().cookies(),
  complaints: async () => complaints,
  picture: async ({ file }) => { await page.screenshot({ path: file, fullPage: true }); },
};

console.log('ready');
const lines = readline.createInterface({ input: process.stdin });
lines.on('close', async () => { await browser.close(); process.exit(0); });
let turn = Promise.resolve();
lines.on('line', (line) => {
  turn = turn.then(async () => {
    const { do: verb, number, ...rest } = JSON.parse(line);
    try {
      console.log(JSON.stringify({ number, value: (await orders[verb](rest)) ?? null }));
    } catch (error) {
      console.log(JSON.stringify({ number, failed: error.message }));
    }
  });
});
