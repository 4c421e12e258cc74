//! Compiles the `.proto` files with protox, so that no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "proto/flott/v1/job_graph.proto",
        "proto/flott/v1/state.proto",
        "proto/flott/v1/task_manager.proto",
        "proto/flott/v1/client.proto",
        "proto/flott/v1/kv.proto",
        "proto/flott/v1/namespace.proto",
        "proto/flott/v1/cluster.proto",
        "proto/flott/v1/command.proto",
        "proto/flott/v1/raft.proto",
        "proto/flott/v1/exchange.proto",
        "proto/flott/v1/operator_state.proto",
    ];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".")
        .btree_map(".")
        .compile_fds(descriptors)?;
    Ok(())
}
