//! Modal's gRPC API.

#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    rust_2018_idioms,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::wildcard_enum_match_arm,
    clippy::unwrap_used,
    clippy::clone_on_ref_ptr,
    reason = "generated from api.proto"
)]
pub(crate) mod api {
    tonic::include_proto!("modal.client");
}
