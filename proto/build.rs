//! Generates the clients, servers and messages from the .proto files, in Rust alone: protox parses, so no `protoc`
//! has to be installed.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "proto";
    // One line for each, in order.
    #[rustfmt::skip]
    let files = [
        "valv/admin/v1/admin.proto",
        "valv/admin/v1/approvals.proto",
        "valv/admin/v1/ledger.proto",
        "valv/admin/v1/openings.proto",
        "valv/admin/v1/reports.proto",
        "valv/admin/v1/retention.proto",
        "valv/admin/v1/credentials.proto",
        "valv/admin/v1/keys.proto",
        "valv/admin/v1/custody.proto",
        "valv/admin/v1/projects.proto",
        "valv/metadata/v1/metadata.proto",
        "valv/shard/v1/shard.proto",
    ];
    for file in files {
        println!("cargo::rerun-if-changed={root}/{file}");
    }
    let mut compiler = protox::Compiler::new([root])?;
    // Source info carries the comments, which become the generated types' documentation.
    compiler.include_source_info(true).include_imports(true).open_files(files)?;

    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // For gRPC reflection. Written here because prost writes it only when it runs protoc itself.
    std::fs::write(out.join("valv.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        // Bodies stay slices of the buffer they were received in.
        .bytes(".")
        // An envelope may hold a leased key: it must not be printable by accident.
        .skip_debug([
            ".valv.metadata.v1.Envelope",
            ".valv.admin.v1.EnsureUserRequest",
            ".valv.admin.v1.CreateAccessKeyRequest",
            ".valv.admin.v1.CreateTokenReply",
            ".valv.admin.v1.SubmitShareRequest",
        ])
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
