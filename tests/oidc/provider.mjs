// provider.mjs KEY CERTIFICATE MODULES: a real OpenID Connect provider on a free port of loopback, over TLS.
//
// It prints `listening on URL` when it is up, and then reads commands from its standard input, one a line, each answered by
// one line: `done`, with what was asked for behind it, or `failed REASON`. It ends when its input does, so that it never outlives a test.
//
//   rotate                    sign with new keys; the former ones stay published
//   withdraw                  sign with new keys; the former ones are gone, with all of their tokens
//   approve CODE SUBJECT      approve the device that shows CODE, as SUBJECT
//   logout SUBJECT SID URI    tell URI over the back channel that this login at the client `cli` is over
//   opaque                    give a new access token of `ci` that is no JWT, and can be asked about (RFC 7662)
//   end TOKEN                 end such a token
//
// MODULES is the node_modules folder that tests/setup filled; it is not in the tree.
//
// Clients: `cli` (public, device flow), `ci` (secret `ci-secret`, client credentials) and `page` (secret `page-secret`, code flow to
// https://gateway.example/login/callback). Subjects are those of `groups` below. Whoever logs in with a browser types a subject, and nothing else.
// ID tokens are for the client; access tokens are JWTs (RFC 9068) for the resource that was asked for, or `urn:gatebook`.
import crypto from 'node:crypto';
import fs from 'node:fs';
import https from 'node:https';
import path from 'node:path';
import readline from 'node:readline';
import { pathToFileURL } from 'node:url';

const [keyFile, certificateFile, modules] = process.argv.slice(2);
const { Provider } = await import(pathToFileURL(path.join(modules, 'oidc-provider/lib/index.js')));

const groups = { alice: ['dba', 'dev'], bob: ['dev'], carol: ['dba'] };
const scopes = 'openid profile groups';

function freshKeys() {
  const rsa = crypto.generateKeyPairSync('rsa', { modulusLength: 2048 });
  const ec = crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const jwk = (pair, alg) => ({ ...pair.privateKey.export({ format: 'jwk' }), alg, use: 'sig', kid: crypto.randomUUID() });
  return [jwk(rsa, 'RS256'), jwk(ec, 'ES256')];
}

// One store for all providers that a rotation makes.
const stored = new Map();
const userCodes = new Map();
const uids = new Map();
class Store {
  constructor(kind) { this.kind = kind; }
  key(id) { return `${this.kind} ${id}`; }
  async upsert(id, payload) {
    stored.set(this.key(id), { ...payload });
    if (payload.uid) uids.set(payload.uid, id);
    if (payload.userCode) userCodes.set(payload.userCode, id);
  }
  async find(id) { return stored.get(this.key(id)); }
  async findByUserCode(code) { return this.find(userCodes.get(code)); }
  async findByUid(uid) { return this.find(uids.get(uid)); }
  async consume(id) { stored.get(this.key(id)).consumed = Math.floor(Date.now() / 1000); }
  async destroy(id) { stored.delete(this.key(id)); }
  async revokeByGrantId() {}
}

function provider(issuer, keys) {
  return new Provider(issuer, {
    adapter: Store,
    jwks: { keys },
    cookies: { keys: [crypto.randomUUID()] },
    clients: [
      {
        client_id: 'cli', token_endpoint_auth_method: 'none', application_type: 'native', redirect_uris: [], response_types: [],
        grant_types: ['urn:ietf:params:oauth:grant-type:device_code'],
        backchannel_logout_uri: 'http://localhost', backchannel_logout_session_required: true,
      },
      { client_id: 'ci', client_secret: 'ci-secret', redirect_uris: [], response_types: [], grant_types: ['client_credentials'] },
      {
        client_id: 'page', client_secret: 'page-secret', redirect_uris: ['https://gateway.example/login/callback'], response_types: ['code'],
        grant_types: ['authorization_code'],
      },
    ],
    scopes: scopes.split(' '),
    claims: { openid: ['sub'], profile: ['preferred_username'], groups: ['groups'] },
    conformIdTokenClaims: false,
    // Its own dispatcher reaches nobody on loopback, where the tests are.
    fetch: (url, { dispatcher, ...options }) => fetch(url, options),
    findAccount: async (_, id) => groups[id] && {
      accountId: id,
      claims: async () => ({ sub: id, preferred_username: id, groups: groups[id] }),
    },
    extraTokenClaims: async (_, token) => ({ groups: token.accountId ? groups[token.accountId] : ['ci/shop/deploy'] }),
    ttl: { AccessToken: 300, ClientCredentials: 300, DeviceCode: 300, Grant: 300, IdToken: 300, Interaction: 300, Session: 300 },
    pkce: { required: () => true },
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    // Nobody is asked what the page may know of them.
    loadExistingGrant: async (ctx) => {
      const grant = new ctx.oidc.provider.Grant({ accountId: ctx.oidc.session.accountId, clientId: ctx.oidc.client.clientId });
      grant.addOIDCScope(scopes);
      grant.addResourceScope('urn:gatebook', 'read');
      await grant.save();
      return grant;
    },
    features: {
      devInteractions: { enabled: false },
      backchannelLogout: { enabled: true },
      introspection: { enabled: true, allowedPolicy: async () => true },
      clientCredentials: { enabled: true },
      deviceFlow: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: async () => 'urn:gatebook',
        useGrantedResource: async () => true,
        getResourceServerInfo: async (_, resource) => ({
          scope: 'read', audience: resource, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'ES256' } },
        }),
      },
    },
  });
}

async function approve(at, code, subject) {
  const device = await at.DeviceCode.findByUserCode(code.replaceAll('-', ''), { ignoreExpiration: true });
  if (!device) throw new Error('no such code');
  const grant = new at.Grant({ accountId: subject, clientId: device.clientId });
  grant.addOIDCScope(scopes);
  grant.addResourceScope('urn:gatebook', 'read');
  Object.assign(device, {
    accountId: subject, grantId: await grant.save(), scope: device.params.scope, claims: {}, resource: 'urn:gatebook',
    authTime: Math.floor(Date.now() / 1000),
  });
  await device.save(300);
}

async function logout(at, subject, sid, uri) {
  const client = await at.Client.find('cli');
  client.backchannelLogoutUri = uri;
  await client.backchannelLogout(subject, sid);
}

async function opaque(at) {
  return new at.ClientCredentials({ client: await at.Client.find('ci'), scope: 'read' }).save();
}

async function end(at, token) {
  await (await at.ClientCredentials.find(token)).destroy();
}

// A person's login: the subject is typed, and believed.
async function interact(at, request, response) {
  await at.interactionDetails(request, response);
  if (request.method !== 'POST') {
    response.setHeader('content-type', 'text/html');
    response.end('<!doctype html><title>Who are you?</title><form method="post"><label>Name <input name="subject" autofocus></label> <button>Log in</button></form>');
    return;
  }
  let body = '';
  for await (const piece of request) body += piece;
  const subject = new URLSearchParams(body).get('subject');
  const result = groups[subject] ? { login: { accountId: subject } } : { error: 'access_denied', error_description: 'nobody of this name' };
  await at.interactionFinished(request, response, result);
}

const [key, cert] = [keyFile, certificateFile].map((file) => fs.readFileSync(file));
let keys = freshKeys();
let current;
let answer;
const server = https.createServer({ key, cert }, (request, response) => answer(request, response));
server.listen(0, '127.0.0.1', () => {
  const issuer = `https://localhost:${server.address().port}`;
  const start = () => {
    current = provider(issuer, keys);
    current.on('server_error', (_, error) => console.error(error));
    const callback = current.callback();
    answer = (request, response) => {
      if (!request.url.startsWith('/interaction/')) return callback(request, response);
      return interact(current, request, response).catch((error) => { console.error(error); response.statusCode = 400; response.end(); });
    };
  };
  const commands = {
    rotate: async () => { keys = [...freshKeys(), ...keys]; start(); },
    withdraw: async () => { keys = freshKeys(); start(); },
    approve: (code, subject) => approve(current, code, subject),
    logout: (subject, sid, uri) => logout(current, subject, sid, uri),
    opaque: () => opaque(current),
    end: (token) => end(current, token),
  };
  start();
  console.log(`listening on ${issuer}`);
  const lines = readline.createInterface({ input: process.stdin });
  lines.on('line', async (line) => {
    const [verb, ...words] = line.split(' ');
    try {
      const given = await commands[verb](...words);
      console.log(given ? `done ${given}` : 'done');
    } catch (error) {
      console.log(`failed ${error.message}`);
    }
  });
  lines.on('close', () => process.exit(0));
});
