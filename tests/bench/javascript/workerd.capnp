using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [ (name = "receiver", worker = .receiver), (name = "tail", worker = .tail) ],
  sockets = [ (name = "http", address = "127.0.0.1:0", http = (), service = "receiver") ],
);

const receiver :Workerd.Worker = (
  modules = [ (name = "receiver.js", esModule = embed "receiver.js") ],
  compatibilityDate = "2026-07-01",
  bindings = [ (name = "TAIL", service = "tail") ],
  tails = [ "tail" ],
);

const tail :Workerd.Worker = (
  modules = [ (name = "tail.js", esModule = embed "tail.js") ],
  compatibilityDate = "2026-07-01",
);
