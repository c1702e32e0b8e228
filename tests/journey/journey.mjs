// The official JavaScript client, unchanged, as a command: node journey.mjs <scenario> '<json arguments>'
// The last line printed is the scenario's result in JSON. Where the server is stands in the client's own environment
// variables: QSTASH_URL and QSTASH_TOKEN, or QSTASH_DEV and QSTASH_DEV_PORT.
import { Client, Receiver, anthropic, custom, openai, resend, upstash } from "@upstash/qstash";

const providers = { anthropic, custom, openai, resend, upstash };

const scenarios = {
  publishJSON: ({ request }) => new Client().publishJSON(request),

  publish: ({ request }) => new Client().publish(request),

  // To a stand-in for the provider, if there is a base URL.
  publishToProvider({ api, provider, baseUrl, request }) {
    const made = providers[provider]({ token: "provider-token", baseUrl: baseUrl ?? "" });
    if (baseUrl) made.baseUrl = baseUrl;
    return new Client().publishJSON({ ...request, api: { name: api, provider: made } });
  },

  publishBinary: ({ request, base64 }) =>
    new Client().publish({ ...request, body: new Uint8Array(Buffer.from(base64, "base64")) }),

  async publishAtOnce({ request, times }) {
    const client = new Client();
    return Promise.all(Array.from({ length: times }, () => client.publishJSON(request)));
  },

  get: ({ messageId }) => new Client().messages.get(messageId),

  cancel: ({ messageId }) => new Client().messages.cancel(messageId),

  cancelMany: ({ request }) => new Client().messages.cancel(request),

  // The names that these had before.
  deleteMany: ({ messageIds }) => new Client().messages.deleteMany(messageIds),

  deleteAll: () => new Client().messages.deleteAll(),

  // The name that it had before; it tells nothing.
  delete: async ({ messageId }) => (await new Client().messages.delete(messageId)) ?? null,

  // Methods that tell nothing give null.
  call: async ({ resource, method, request }) => (await new Client()[resource][method](request)) ?? null,

  queue: async ({ queueName, method, request }) => (await new Client().queue({ queueName })[method](request)) ?? null,

  flowControl: async ({ method, args }) => (await new Client().flowControl[method](...args)) ?? null,

  batch: ({ request }) => new Client().batch(request),

  batchJSON: ({ request }) => new Client().batchJSON(request),

  dlq: ({ method, request }) => new Client().dlq[method](request),

  // Page after page, as the client's documentation has it; the answers to all the calls.
  async dlqToTheEnd({ method, request }) {
    const client = new Client();
    const answers = [];
    let cursor;
    do {
      answers.push(await client.dlq[method]({ ...request, cursor }));
      cursor = answers.at(-1).cursor;
    } while (cursor);
    return answers;
  },

  logs: ({ request }) => new Client().logs(request),

  events: ({ request }) => new Client().events(request),

  async allLogs({ request }) {
    const found = [];
    let cursor;
    do {
      const page = await new Client().logs({ ...request, cursor });
      found.push(...page.logs);
      cursor = page.cursor;
    } while (cursor);
    return found;
  },

  async verify({ signature, body, url }) {
    try {
      return { valid: await new Receiver().verify({ signature, body, url }) };
    } catch (error) {
      return { valid: false, error: error.name };
    }
  },

  // A publish that the server turns down, as the client shows it.
  async refused({ request }) {
    try {
      return { accepted: await new Client().publishJSON(request) };
    } catch (error) {
      return { name: error.name, status: error.status, message: error.message };
    }
  },
};

const [scenario, json] = process.argv.slice(2);
const result = await scenarios[scenario](JSON.parse(json));
console.log(JSON.stringify(result));
