// node-postgres: driver.js text | binary
const fs = require('node:fs');
const { pipeline } = require('node:stream/promises');
const { Readable, Writable } = require('node:stream');
const { Client } = require('pg');
const Cursor = require('pg-cursor');
const { from, to } = require('pg-copy-streams');

const binary = process.argv[2] === 'binary';
const steps = JSON.parse(fs.readFileSync(process.env.GATEBOOK_SCRIPT, 'utf8'));
const place = { host: process.env.PGHOST, port: +process.env.PGPORT };
const ssl = { ca: fs.readFileSync(process.env.PGSSLROOTCERT, 'utf8'), servername: process.env.PGHOST };

const say = (step, what) => console.log(JSON.stringify({ step, ...what }));
const shown = (cell) => (cell === null || typeof cell === 'string' ? cell : Buffer.isBuffer(cell) ? cell.toString('hex') : String(cell));
const values = (list) => (list || []).map((value) => (value && value.bytes ? Buffer.from(value.bytes, 'hex') : value));
const result = ({ command, rowCount, rows }) => ({ command, rowCount, rows: rows.map((row) => row.map(shown)) });

async function main() {
  const client = new Client({ ...place, ssl, binary });
  await client.connect();
  const notices = [];
  let cancel = null;
  client.on('notice', (notice) => {
    notices.push([notice.severity, notice.message]);
    if (cancel && notice.message === 'running') cancel();
  });
  client.on('error', (error) => say(-1, { lost: error.message }));
  const query = (step, text, list, name) =>
    client.query({ text, values: list, name, rowMode: 'array' }).then((done) => say(step, { results: [].concat(done).map(result) }));

  async function run(at, step) {
    switch (step.do) {
      case 'run':
        return query(at, step.sql, step.params && values(step.params));
      case 'several':
        return query(at, step.sql);
      case 'prepared':
        for (const list of step.runs) await query(at, step.sql, values(list), `prepared_${at}`);
        return;
      case 'pipeline':
        // Queued at once; this driver sends the next when the last is ready.
        await Promise.all(step.steps.map((one) => query(at, one.sql, values(one.params))));
        return;
      case 'transaction':
        await query(at, 'BEGIN');
        for (const one of step.steps) await query(at, one.sql, values(one.params));
        return query(at, step.end.toUpperCase());
      case 'copy_in':
        return pipeline(Readable.from([Buffer.from(step.data)]), client.query(from(step.sql))).then(() => say(at, { copied: true }));
      case 'copy_out': {
        const chunks = [];
        await pipeline(client.query(to(step.sql)), new Writable({ write(chunk, _, done) { chunks.push(chunk); done(); } }));
        return say(at, { data: Buffer.concat(chunks).toString() });
      }
      case 'fetch': {
        const cursor = client.query(new Cursor(step.sql, [], { rowMode: 'array' }));
        for (let rows; (rows = await cursor.read(step.size)).length > 0; ) say(at, { rows: rows.map((row) => row.map(shown)) });
        return cursor.close();
      }
      case 'cancel': {
        const asked = client.query({ text: step.sql });
        const active = client.activeQuery || client._activeQuery || client._getActiveQuery?.();
        // This driver's cancel goes in clear and over a connection of its own.
        cancel = () => new Client({ ...place, ssl: false }).cancel(client, active);
        return asked;
      }
      default:
        throw new Error(`unknown step ${step.do}`);
    }
  }

  for (const [at, step] of steps.entries()) {
    try {
      await run(at, step);
    } catch (error) {
      if (!error.code || !error.severity) throw error;
      say(at, { error: [error.code, error.message] });
    }
    if (notices.length) say(at, { notices: notices.splice(0) });
  }
  await client.end();
}

main().catch((error) => { console.error(error); process.exit(1); });
