//! The runner's releases: which one GitHub offers, and until when it takes older ones.

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::call::{Call, Operation};
use super::client::Request;
use super::error::Malformed;
use super::pages::unreadable;
use super::reader::{GithubReader, runners_path};
use super::wire::time;
use super::{Answer, GithubError};
use crate::budget::Purpose;
use crate::error::ErrorClass;
use crate::runner::{RunnerVersion, VersionNotice};
use crate::state::Registry;

/// The release of the runner application that GitHub wants to be used.
#[derive(Debug, Clone)]
pub struct RunnerRelease {
    /// Its version.
    pub version: RunnerVersion,
    /// Where the archive for Linux on x64 is.
    pub download_url: String,
    /// The archive's SHA-256 in hexadecimal digits, where GitHub gives it.
    pub sha256: Option<String>,
    /// What the download has to be authorized with, as a bearer token, where GitHub gives it: an Enterprise Server does,
    /// for a short time.
    pub download_token: Option<SecretString>,
}

/// One entry of `runners/downloads`.
#[derive(Deserialize)]
struct WireDownload {
    os: String,
    architecture: String,
    download_url: String,
    filename: String,
    sha256_checksum: Option<String>,
    temp_download_token: Option<SecretString>,
}

#[derive(Deserialize)]
struct WireDeprecation {
    registration_deprecates_at: Option<String>,
    runtime_deprecates_at: Option<String>,
}

impl GithubReader {
    /// Reads which release of the runner GitHub wants to be used in a place, for Linux on x64.
    ///
    /// # Errors
    /// [`GithubError`], also where GitHub lists none whose name, address and checksum are of the usual form.
    pub async fn runner_release(&self, registry: &Registry) -> Result<RunnerRelease, GithubError> {
        let call = Call::at(registry, Operation::ListRunnerReleases, registry.to_string());
        let path = format!("{}/downloads", runners_path(registry));
        let answer = self.client().send(&call, Purpose::Other, Request::Get { path: &path, known: None }).await?;
        read_release(&answer).map_err(|malformed| unreadable(&call, &answer, malformed))
    }

    /// Reads until when GitHub takes runners of a version; without dates where it says nothing of it, as an Enterprise
    /// Server does.
    ///
    /// # Errors
    /// [`GithubError`], of any class but [`ErrorClass::NotFound`].
    pub async fn runner_notice(
        &self,
        registry: &Registry,
        version: RunnerVersion,
    ) -> Result<VersionNotice, GithubError> {
        let subject = format!("runner {version} in {registry}");
        let call = Call::at(registry, Operation::GetRunnerDeprecation, subject);
        let path = format!("{}/deprecations/{version}", runners_path(registry));
        let answer = match self.client().send(&call, Purpose::Other, Request::Get { path: &path, known: None }).await {
            Ok(answer) => answer,
            Err(error) if error.class() == ErrorClass::NotFound => return Ok(VersionNotice::default()),
            Err(error) => return Err(error),
        };
        let WireDeprecation { registration_deprecates_at, runtime_deprecates_at } =
            serde_json::from_slice(&answer.body)
                .map_err(|error| unreadable(&call, &answer, Malformed::json("the notice", &error)))?;
        Ok(VersionNotice { registers_until: time(registration_deprecates_at), runs_until: time(runtime_deprecates_at) })
    }
}

fn read_release(answer: &Answer) -> Result<RunnerRelease, Malformed> {
    let entries: Vec<serde_json::Value> =
        serde_json::from_slice(&answer.body).map_err(|error| Malformed::json("the list", &error))?;
    entries
        .into_iter()
        .filter_map(|entry| serde_json::from_value::<WireDownload>(entry).ok())
        .filter(|entry| entry.os == "linux" && entry.architecture == "x64")
        .find_map(release)
        .ok_or(Malformed::NoRelease)
}

/// The release of an entry, all of whose texts are fit for an image definition.
fn release(entry: WireDownload) -> Option<RunnerRelease> {
    let WireDownload { os: _, architecture: _, download_url, filename, sha256_checksum, temp_download_token } = entry;
    let version = filename.strip_prefix("actions-runner-linux-x64-")?.strip_suffix(".tar.gz")?.parse().ok()?;
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/?&=%+@".contains(&b);
    let is_address = download_url.starts_with("https://") && download_url.bytes().all(is_plain);
    let is_sum = |sum: &String| sum.len() == 64 && sum.bytes().all(|b| b.is_ascii_hexdigit());
    let download_token = temp_download_token.filter(|token| !token.expose_secret().is_empty());
    let is_token = |token: &SecretString| token.expose_secret().bytes().all(|b| b.is_ascii_graphic());
    if !is_address || !sha256_checksum.as_ref().is_none_or(is_sum) || !download_token.as_ref().is_none_or(is_token) {
        return None;
    }
    Some(RunnerRelease { version, download_url, sha256: sha256_checksum, download_token })
}
