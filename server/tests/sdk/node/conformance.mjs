// A session with OpenAI's library for JavaScript: node conformance.mjs URL MODEL
import OpenAI, { toFile } from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { VERSION } from "openai/version";
import { z } from "zod";

const [url, base] = process.argv.slice(2);
const client = new OpenAI({ baseURL: url, apiKey: "sk-local", maxRetries: 0 });
const question = [{ role: "user", content: "Make a form." }];
const Form = z.object({ kind: z.enum(["form", "table"]), wide: z.boolean() });
let held = 0;
let failed = 0;
let call = "";

function check(what, holds, seen) {
  if (holds) {
    held += 1;
  } else {
    failed += 1;
    console.log(`FAILED  ${call}: ${what}: ${JSON.stringify(seen)?.slice(0, 600)}`);
  }
}

async function refused(what, kind, request, code) {
  try {
    check(what, false, await request());
  } catch (error) {
    const told = error instanceof kind && error.requestID?.startsWith("req_");
    check(what, told && (code === undefined || error.code === code), String(error));
  }
}

async function collect(iterable) {
  const items = [];
  for await (const item of iterable) items.push(item);
  return items;
}

function rows(count) {
  const row = { messages: [...question, { role: "assistant", content: "import streamlit" }] };
  return `${JSON.stringify(row)}\n`.repeat(count);
}

async function upload(content, purpose = "fine-tune") {
  return client.files.create({ file: await toFile(Buffer.from(content), "train.jsonl"), purpose });
}

async function until(job, states = []) {
  while (![...states, "succeeded", "failed", "cancelled"].includes(job.status)) {
    await new Promise((done) => setTimeout(done, 50));
    job = await client.fineTuning.jobs.retrieve(job.id);
  }
  return job;
}

const ask = (model, more) =>
  client.chat.completions.create({ model, messages: question, max_tokens: 24, ...more });
const text = (reply) => reply.choices[0].message.content;
// What earlier calls made.
const made = {};

const calls = {
  async "1 models"() {
    const listed = (await collect(client.models.list())).map((model) => model.id);
    check("list", listed.includes(base), listed);
    check("retrieve", (await client.models.retrieve(base)).id === base);
    // This library sends the colons as %3A.
    const unknown = () => client.models.retrieve("ft:x:y::z");
    await refused("retrieve unknown", OpenAI.NotFoundError, unknown, "model_not_found");
    await refused("delete the base", OpenAI.BadRequestError, () => client.models.delete(base));
  },

  async "2 files"() {
    const ids = [];
    for (let n = 0; n < 4; n += 1) ids.push((await upload(rows(10))).id);
    made.file = ids[0];
    check("content", (await (await client.files.content(ids[0])).text()) === rows(10));
    const listed = (await collect(client.files.list({ limit: 1, order: "asc" }))).map((file) => file.id);
    check("page by page", JSON.stringify(listed) === JSON.stringify(ids), listed);
    check("processed", (await client.files.waitForProcessing(ids[0])).status === "processed");
    check("delete", (await client.files.delete(ids[3])).deleted);
    await refused("deleted", OpenAI.NotFoundError, () => client.files.retrieve(ids[3]));
  },

  async "3 files that are refused"() {
    await refused("no JSON lines", OpenAI.BadRequestError, () => upload("hello\n"));
    await refused("purpose", OpenAI.BadRequestError, () => upload(rows(1), "nope"));
  },

  async "4 uploads in parts"() {
    const content = rows(10);
    const about = { filename: "parts.jsonl", mime_type: "text/jsonl", purpose: "fine-tune" };
    const start = () => client.uploads.create({ bytes: Buffer.byteLength(content), ...about });
    const upload = await start();
    const part = async (data) =>
      (await client.uploads.parts.create(upload.id, { data: await toFile(Buffer.from(data), "part") })).id;
    const part_ids = [await part(content.slice(0, 90)), await part(content.slice(90))];
    const whole = await client.uploads.complete(upload.id, { part_ids });
    check("complete", whole.status === "completed", whole);
    check("content", (await (await client.files.content(whole.file.id)).text()) === content);
    check("cancel", (await client.uploads.cancel((await start()).id)).status === "cancelled");
  },

  async "5 jobs that are refused"() {
    const create = (more) => client.fineTuning.jobs.create({ model: base, training_file: made.file, ...more });
    for (const bad of [{ model: "gpt-9" }, { training_file: "file-nobody" }, { seed: -1 }, { suffix: "x".repeat(65) }]) {
      await refused(JSON.stringify(bad), OpenAI.BadRequestError, () => create(bad));
    }
  },

  async "6 a job to its model"() {
    const hyperparameters = { n_epochs: 4, learning_rate_multiplier: 10, batch_size: 1 };
    const job = await until(await client.fineTuning.jobs.create({
      model: base, training_file: made.file, suffix: "node", metadata: { k: "v" },
      method: { type: "supervised", supervised: { hyperparameters } },
    }));
    made.job = job;
    check("succeeded", job.status === "succeeded" && job.trained_tokens > 0, job);
    check("error is null", job.error === null, job.error);
    check("is a model", (await client.models.retrieve(job.fine_tuned_model)).id === job.fine_tuned_model);
    const csv = Buffer.from(await (await client.files.content(job.result_files[0])).text(), "base64").toString();
    check("result file", csv.startsWith("step,train_loss,train_accuracy"), csv.slice(0, 80));
  },

  async "7 lists, events, checkpoints"() {
    const found = (await collect(client.fineTuning.jobs.list({ metadata: { k: "v" } }))).map((job) => job.id);
    check("by metadata", found.length === 1 && found[0] === made.job.id, found);
    const events = await collect(client.fineTuning.jobs.listEvents(made.job.id, { limit: 7 }));
    check("newest first", events[0].message.includes("completed") && events.at(-1).message.includes("Created"), events);
    check("each once", new Set(events.map((event) => event.id)).size === events.length, events.length);
    check("metrics", events.filter((event) => event.type === "metrics").length === 40);
    const checkpoints = await collect(client.fineTuning.jobs.checkpoints.list(made.job.id, { limit: 2 }));
    check("checkpoints", checkpoints.map((c) => c.step_number).join() === "40,30,20", checkpoints);
    made.checkpoint = checkpoints[1].fine_tuned_model_checkpoint;
  },

  async "8 a job that fails"() {
    const few = await upload(rows(9));
    const job = await until(await client.fineTuning.jobs.create({ model: base, training_file: few.id }));
    check("reason", job.status === "failed" && job.error.code === "invalid_n_examples", job);
  },

  async "9 cancel, pause, resume"() {
    const jobs = client.fineTuning.jobs;
    const training_file = (await upload(rows(100))).id;
    const create = () => jobs.create({ model: base, training_file, hyperparameters: { n_epochs: 50 } });
    const job = await until(await create(), ["running"]);
    check("pause", ["pausing", "paused"].includes((await jobs.pause(job.id)).status));
    check("paused", (await until(job, ["paused"])).status === "paused");
    check("resume", ["queued", "running"].includes((await jobs.resume(job.id)).status));
    check("cancel", (await jobs.cancel(job.id)).status === "cancelled");
    await refused("cancel again", OpenAI.BadRequestError, () => jobs.cancel(job.id));
  },

  async "10 chat"() {
    const tuned = made.job.fine_tuned_model;
    const says = {};
    for (const model of [base, tuned, made.checkpoint]) says[model] = text(await ask(model, { temperature: 0 }));
    check("training shows", says[base] !== says[tuned] && says[base] !== says[made.checkpoint], says);
    check("greedy repeats", text(await ask(tuned, { temperature: 0 })) === says[tuned]);
    const two = await ask(base, { n: 2, seed: 1, logprobs: true, top_logprobs: 2 });
    check("n", two.choices.length === 2);
    check("logprobs", two.choices[0].logprobs.content[0].top_logprobs.length === 2, two.choices[0]);
    check("usage", two.usage.total_tokens === two.usage.prompt_tokens + two.usage.completion_tokens, two.usage);
    const short = await ask(base, { max_tokens: undefined, max_completion_tokens: 3, seed: 1 });
    check("max_completion_tokens", short.choices[0].finish_reason === "length", short);
    await refused("unknown model", OpenAI.NotFoundError, () => ask("nobody"), "model_not_found");
    const { request_id } = await ask(base, { max_tokens: 1 }).withResponse();
    check("request id", request_id?.startsWith("req_"), request_id);
  },

  async "11 streaming"() {
    const whole = text(await ask(base, { seed: 9 }));
    const chunks = await collect(await ask(base, { seed: 9, stream: true, stream_options: { include_usage: true } }));
    const streamed = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
    check("the same text", streamed === whole, [streamed, whole]);
    check("usage", chunks.at(-1).usage.completion_tokens > 0, chunks.at(-1));
    const helper = client.chat.completions.stream({ model: base, messages: question, max_tokens: 24, seed: 9 });
    check("helper", (await helper.finalContent()) === whole);
    const left = await ask(base, { stream: true, max_tokens: 4000 });
    for await (const _ of left) break;
    check("goes on after one who left", text(await ask(base, { seed: 9 })) === whole);
    const parsed = await client.chat.completions.parse({
      model: base, messages: question, max_tokens: 200, response_format: zodResponseFormat(Form, "form"),
    });
    check("parse", Form.safeParse(parsed.choices[0].message.parsed).success, parsed);
  },

  async "13 responses"() {
    const options = { model: base, input: "Make a form.", max_output_tokens: 24, temperature: 0 };
    const reply = await client.responses.create(options);
    check("output_text", reply.output_text === text(await ask(base, { temperature: 0 })), reply);
    const events = await collect(await client.responses.create({ ...options, stream: true }));
    const streamed = events.filter((event) => event.type === "response.output_text.delta").map((event) => event.delta);
    check("streamed", streamed.join("") === reply.output_text, streamed);
  },

  async "14 batches"() {
    const body = { model: base, messages: question, max_tokens: 4 };
    const lines = ["a", "b", "c"].map((custom_id) =>
      JSON.stringify({ custom_id, method: "POST", url: "/v1/chat/completions", body }));
    const input = await upload(`${lines.join("\n")}\n`, "batch");
    let batch = await client.batches.create({
      input_file_id: input.id, endpoint: "/v1/chat/completions", completion_window: "24h",
    });
    while (!["completed", "failed", "expired", "cancelled"].includes(batch.status)) {
      await new Promise((done) => setTimeout(done, 50));
      batch = await client.batches.retrieve(batch.id);
    }
    check("completed", batch.status === "completed" && batch.request_counts.completed === 3, batch);
    const output = await (await client.files.content(batch.output_file_id)).text();
    const ids = output.trim().split("\n").map((line) => JSON.parse(line).custom_id);
    check("every custom_id", ids.sort().join() === "a,b,c", ids);
  },

  async "15 graders"() {
    const grader = {
      type: "string_check", name: "same", operation: "eq",
      input: "{{sample.output_text}}", reference: "{{item.answer}}",
    };
    const run = (model_sample) =>
      client.fineTuning.alpha.graders.run({ grader, model_sample, item: { answer: "a form" } });
    check("validate", (await client.fineTuning.alpha.graders.validate({ grader })).grader.name === "same");
    check("run", (await run("a form")).reward === 1 && (await run("b")).reward === 0);
  },

  async "17 many at once"() {
    const streams = Array.from({ length: 8 }, async () => collect(await ask(base, { stream: true, max_tokens: 40 })));
    check("eight streams", (await Promise.all(streams)).every((chunks) => chunks.length > 1));
    check("delete the tuned model", (await client.models.delete(made.job.fine_tuned_model)).deleted);
    await refused("it is gone", OpenAI.NotFoundError, () => ask(made.job.fine_tuned_model), "model_not_found");
  },
};

for (call of Object.keys(calls)) {
  try {
    await calls[call]();
  } catch (error) {
    check("stops", false, String(error.stack));
  }
}
console.log(`${held} of ${held + failed} checks hold with openai-node ${VERSION}, node ${process.version}`);
process.exit(failed ? 1 : 0);
