//! Generates the Modal client and server from `src/modal/api.proto` without a system protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=src/modal/api.proto");
    let descriptors = protox::compile(["src/modal/api.proto"], ["src/modal"])?;
    tonic_prost_build::configure()
        .build_server(std::env::var_os("CARGO_FEATURE_SIM").is_some())
        .compile_fds(descriptors)?;
    Ok(())
}
