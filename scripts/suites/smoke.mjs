// What a node-postgres application does, in the simple, the prepared and the binary mode; prints what it got.
//
// Arguments: the host and port of a server. Run by scripts/suites.sh, which compares what two servers answer.

import pg from 'pg';

const [host, port] = process.argv.slice(2);
const session = { host, port: Number(port), user: 'postgres', database: 'suite' };

const modes = {
  simple: (text) => ({ text }),
  unnamed: (text, values) => ({ text, values: values ?? [], queryMode: 'extended' }),
  prepared: (text, values) => ({ text, values: values ?? [], name: `statement ${text.length} ${text.slice(0, 20)}` }),
  binary: (text, values) => ({ text, values: values ?? [], binary: true }),
  array: (text, values) => ({ text, values: values ?? [], rowMode: 'array' }),
};

const shown = (value) =>
  JSON.stringify(value, (_, one) => (Buffer.isBuffer(one) ? one.toString('hex') : typeof one === 'bigint' ? `${one}` : one));

async function run(mode, name, test) {
  let outcome;
  try {
    outcome = shown(await test());
  } catch (error) {
    outcome = shown({ code: error.code, message: error.message, position: error.position, detail: error.detail });
  }
  console.log(`${mode}/${name} ${outcome}`);
}

async function main() {
  for (const [mode, ask] of Object.entries(modes)) {
    const client = new pg.Client(session);
    const notices = [];
    const notifications = [];
    client.on('notice', (notice) => notices.push(notice.message));
    client.on('notification', ({ channel, payload }) => notifications.push([channel, payload]));
    await client.connect();
    const parameters = mode !== 'simple';

    await run(mode, 'types', async () => {
      const { rows, fields } = await client.query(
        ask("SELECT 1::int4 AS a, 2::int8 AS b, 1.5::float8 AS c, 'größe'::text AS d, true AS e, '\\x0001'::bytea AS f, NULL::int AS g"));
      return [rows, fields.map(({ name, dataTypeID, format }) => [name, dataTypeID, format])];
    });
    await run(mode, 'repeated', async () => {
      const sums = [];
      for (let at = 1; at <= 10; at++) {
        const text = parameters
          ? 'SELECT count(*), sum(g) FROM generate_series(1, $1::int) g'
          : `SELECT count(*), sum(g) FROM generate_series(1, ${at}) g`;
        sums.push((await client.query(ask(text, parameters ? [at] : undefined))).rows);
      }
      return sums;
    });
    await run(mode, 'error', () => client.query(ask('SELECT * FROM nowhere')));
    await run(mode, 'empty', async () => (await client.query(ask(''))).rows);
    if (!parameters) {
      await run(mode, 'several', async () =>
        (await client.query('SELECT 1 AS a; SELECT 2 AS b; SELECT 3 AS c')).map(({ rows }) => rows));
    }
    await run(mode, 'notice', async () => {
      await client.query(ask("DO $$ BEGIN RAISE NOTICE 'seen'; END $$"));
      return notices;
    });
    await run(mode, 'transaction', async () => {
      await client.query(ask('BEGIN'));
      await client.query(ask('CREATE TEMP TABLE t (x int) ON COMMIT DROP'));
      await client.query(ask('INSERT INTO t SELECT generate_series(1, 3)'));
      const { rows } = await client.query(ask('SELECT sum(x) FROM t'));
      await client.query(ask('ROLLBACK'));
      return rows;
    });
    await run(mode, 'pipelined', () =>
      Promise.all([1, 2, 3].map(async (at) => (await client.query(ask(`SELECT ${at} AS at`))).rows)));
    await run(mode, 'listen', async () => {
      await client.query(ask('LISTEN news'));
      const other = new pg.Client(session);
      await other.connect();
      await other.query("NOTIFY news, 'paper'");
      await other.end();
      for (let waited = 0; notifications.length === 0 && waited < 200; waited++) {
        await new Promise((done) => setTimeout(done, 20));
      }
      return notifications;
    });
    await client.end();
  }
}

await main();
