//! JIT configs as GitHub hands them out: base64 of a JSON map from file name to base64 content.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::draws::Draw;

/// What a config is made from.
pub(super) struct Registration<'a> {
    pub(super) runner_id: u64,
    pub(super) runner_name: &'a str,
    pub(super) repo: &'a str,
    pub(super) work_folder: &'a str,
    /// The secret by which the runner proves its registration.
    pub(super) credential: &'a str,
}

/// Writes a config; `draw` fills the key, which nothing reads.
pub(super) fn encode(registration: &Registration<'_>, draw: &mut Draw) -> String {
    let runner = json!({
        "AgentId": registration.runner_id.to_string(),
        "AgentName": registration.runner_name,
        "DisableUpdate": "True",
        "Ephemeral": "True",
        "PoolId": "1",
        "PoolName": "Default",
        "ServerUrl": "https://pipelines.actions.githubusercontent.com/simulated/",
        "GitHubUrl": format!("https://github.com/{}", registration.repo),
        "WorkFolder": registration.work_folder,
        "UseV2Flow": "True",
    });
    let credentials = json!({
        "scheme": "OAuth",
        "data": {
            "clientId": registration.credential,
            "authorizationUrl": "https://vstoken.actions.githubusercontent.com/simulated/",
            "requireFipsCryptography": "True",
        },
    });
    let key = json!({ "modulus": draw.text(BASE64, 344), "exponent": "AQAB", "d": draw.text(BASE64, 344) });
    let files: Map<String, Value> = [(".runner", runner), (CREDENTIALS, credentials), (".credentials_rsaparams", key)]
        .into_iter()
        .map(|(name, content)| (name.to_owned(), Value::String(STANDARD.encode(content.to_string()))))
        .collect();
    STANDARD.encode(Value::Object(files).to_string())
}

/// Reads the credential of a config, as the runner does; none where it is no config.
pub(super) fn credential(config: &str) -> Option<String> {
    let decoded = |text: &str| STANDARD.decode(text.trim()).ok();
    let files: Map<String, Value> = serde_json::from_slice(&decoded(config)?).ok()?;
    let content = decoded(files.get(CREDENTIALS)?.as_str()?)?;
    let credentials: Value = serde_json::from_slice(&content).ok()?;
    Some(credentials.pointer("/data/clientId")?.as_str()?.to_owned())
}

const CREDENTIALS: &str = ".credentials";
const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[cfg(test)]
mod tests {
    use super::super::draws::{Purpose, Seed};
    use super::*;

    #[test]
    fn the_runner_finds_its_credential_in_the_config_and_nowhere_else() {
        let registration = Registration {
            runner_id: 7,
            runner_name: "sr-main-gh-5-1",
            repo: "acme/web",
            work_folder: "_work",
            credential: "secret-7",
        };
        let config = encode(&registration, &mut Seed::new(1).stream(Purpose::Identity, 7));
        assert_eq!(credential(&config).as_deref(), Some("secret-7"));
        assert!(!config.contains("secret-7"));
        assert_eq!(credential("bm8gY29uZmln"), None);
        assert_eq!(credential(&config[..config.len() / 2]), None);
    }
}
