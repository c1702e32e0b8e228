// Prints the names of all methods that the official JavaScript client has, in JSON.
import { Client } from "@upstash/qstash";

const client = new Client({ token: "none" });
const prototype = (object) => Object.getOwnPropertyDescriptors(Object.getPrototypeOf(object));
const methods = (object, prefix) =>
  Object.entries(prototype(object))
    .filter(([name, { value }]) => name !== "constructor" && typeof value === "function")
    .map(([name]) => prefix + name);

const found = methods(client, "");
for (const [name, { get }] of Object.entries(prototype(client))) {
  if (get) found.push(...methods(client[name], `${name}.`));
}
found.push(...methods(client.queue({ queueName: "q" }), "queue."), ...methods(client.chat(), "chat."));
console.log(JSON.stringify(found));
