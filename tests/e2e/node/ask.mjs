// Drives the real openai package: `node ask.mjs CASE URL KEY`, prints what happened as one line of JSON.
import OpenAI from "openai";

const [, , what, baseURL, apiKey] = process.argv;
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 20000 });
const model = "qwen3:32b";
const messages = [{ role: "user", content: "hi" }];
const tools = [{
  type: "function",
  function: {
    name: "get_weather",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
}];

async function caught(promise) {
  try {
    await promise;
    return { name: null };
  } catch (error) {
    const { status, code, type, param, requestID, message } = error;
    return { name: error.constructor.name, status, code, type, param, requestID, message };
  }
}

const cases = {
  async whole() {
    const answer = await client.chat.completions.create({ model, messages });
    return { content: answer.choices[0].message.content, finish: answer.choices[0].finish_reason, usage: answer.usage, id: answer._request_id };
  },

  async stream() {
    const stream = await client.chat.completions.create({ model, messages, stream: true, stream_options: { include_usage: true } });
    const seen = { content: "", finish: null, usage: null, chunks: 0 };
    for await (const chunk of stream) {
      seen.chunks++;
      seen.content += chunk.choices[0]?.delta.content ?? "";
      seen.finish = chunk.choices[0]?.finish_reason ?? seen.finish;
      seen.usage = chunk.usage ?? seen.usage;
    }
    return seen;
  },

  async helper() {
    const stream = client.chat.completions.stream({ model, messages });
    const final = await stream.finalChatCompletion();
    return { content: final.choices[0].message.content, finish: final.choices[0].finish_reason };
  },

  // The model asks, we answer, the model goes on.
  async tools() {
    const first = await client.chat.completions.create({ model, messages, tools });
    const call = first.choices[0].message.tool_calls[0];
    const more = [...messages, first.choices[0].message,
      { role: "tool", tool_call_id: call.id, content: "sunny in " + JSON.parse(call.function.arguments).city }];
    const second = await client.chat.completions.create({ model, messages: more, tools });
    return { name: call.function.name, finish: first.choices[0].finish_reason, second: second.choices[0].message.content };
  },

  async toolStream() {
    const stream = client.chat.completions.stream({ model, messages, tools });
    const final = await stream.finalChatCompletion();
    const call = final.choices[0].message.tool_calls[0];
    return { name: call.function.name, arguments: JSON.parse(call.function.arguments), finish: final.choices[0].finish_reason };
  },

  async schema() {
    const schema = { type: "object", properties: { a: { type: "integer" } }, required: ["a"] };
    const answer = await client.chat.completions.create({
      model, messages, response_format: { type: "json_schema", json_schema: { name: "n", schema } },
    });
    return JSON.parse(answer.choices[0].message.content);
  },

  // Leaves the loop after the first chunk and says when, on the clock the stand-in uses.
  async abort() {
    const stream = await client.chat.completions.create({ model, messages, stream: true });
    for await (const _ of stream)
      break;
    const left = Number(process.hrtime.bigint()) / 1e6;
    console.log(JSON.stringify({ left }));
    await new Promise((resolve) => setTimeout(resolve, 3000));
    return {};
  },

  async abortWhole() {
    const controller = new AbortController();
    const asked = caught(client.chat.completions.create({ model, messages }, { signal: controller.signal }));
    await new Promise((resolve) => process.stdin.once("data", resolve));
    const left = Number(process.hrtime.bigint()) / 1e6;
    controller.abort();
    const { name } = await asked;
    return { left, name };
  },

  models: async () => ({ ids: (await client.models.list()).data.map((one) => one.id) }),
  model: async () => ({ id: (await client.models.retrieve(model)).id }),
  badRequest: () => caught(client.chat.completions.create({ model, messages, temperature: "hot" })),
  notFound: () => caught(client.chat.completions.create({ model: "nobody-knows", messages })),
  any: () => caught(client.chat.completions.create({ model, messages })),
  retried: () => caught(new OpenAI({ baseURL, apiKey, maxRetries: 2 }).chat.completions.create({ model, messages })),

  anyStream: () => caught((async () => {
    for await (const _ of await client.chat.completions.create({ model, messages, stream: true }));
  })()),
};

console.log(JSON.stringify(await cases[what]()));
process.exit(0);
