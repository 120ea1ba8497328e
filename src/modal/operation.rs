//! The calls that the client makes, named for metrics and for people.

use std::fmt;

/// One of Modal's methods, and what it is called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation(&'static Method);

#[derive(Debug, PartialEq, Eq)]
struct Method {
    rpc: &'static str,
    purpose: &'static str,
    effect: Effect,
}

/// What a repeated call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// The same as one call.
    Once,
    /// May make a second thing.
    Again,
}

impl Method {
    const fn new(rpc: &'static str, purpose: &'static str) -> Self {
        Self { rpc, purpose, effect: Effect::Once }
    }

    const fn creating(rpc: &'static str, purpose: &'static str) -> Self {
        Self { rpc, purpose, effect: Effect::Again }
    }
}

impl Operation {
    pub(super) const HELLO: Self = Self(&Method::new("ClientHello", "greet"));
    pub(super) const AUTHENTICATE: Self = Self(&Method::new("AuthTokenGet", "authenticate with"));
    pub(super) const LOOK_UP_APP: Self = Self(&Method::new("AppGetOrCreate", "look up App"));
    pub(super) const ENSURE_APP: Self = Self(&Method::new("AppGetOrCreate", "look up or create App"));
    pub(super) const READ_ENVIRONMENT: Self = Self(&Method::new("EnvironmentGetOrCreate", "read environment"));
    pub(super) const READ_QUOTA: Self = Self(&Method::new("EnvironmentList", "read the quota of environment"));
    pub(super) const FETCH_LOGS: Self = Self(&Method::new("AppFetchLogs", "fetch the output of sandbox"));
    pub(super) const DEFINE_IMAGE: Self = Self(&Method::new("ImageGetOrCreate", "define image"));
    pub(super) const FOLLOW_IMAGE: Self = Self(&Method::new("ImageJoinStreaming", "follow the build of image"));
    pub(super) const STORE_SECRET: Self = Self(&Method::new("SecretGetOrCreate", "store Secret"));
    pub(super) const FIND_IMAGE: Self = Self(&Method::new("ImageFromId", "look up image"));
    pub(super) const READ_ENVIRONMENTS: Self = Self(&Method::new("EnvironmentList", "list the environments of"));
    pub(super) const FIND_SECRET: Self = Self(&Method::new("SecretGetOrCreate", "look up Secret"));
    pub(super) const ENSURE_VOLUME: Self = Self(&Method::new("VolumeGetOrCreate", "look up or create Volume"));
    pub(super) const DELETE_SECRET: Self = Self(&Method::new("SecretDelete", "delete Secret"));
    pub(super) const CREATE_V1: Self = Self(&Method::creating("SandboxCreate", "create sandbox"));
    pub(super) const CREATE_V2: Self = Self(&Method::creating("SandboxCreateV2", "create sandbox"));
    pub(super) const LIST: Self = Self(&Method::new("SandboxListV2", "list the sandboxes of App"));
    pub(super) const FIND_V1: Self = Self(&Method::new("SandboxGetFromName", "look up the sandbox named"));
    pub(super) const FIND_V2: Self = Self(&Method::new("SandboxGetFromNameV2", "look up the sandbox named"));
    pub(super) const WAIT_V1: Self = Self(&Method::new("SandboxWait", "ask for the result of sandbox"));
    pub(super) const WAIT_V2: Self = Self(&Method::new("SandboxWaitV2", "ask for the result of sandbox"));
    pub(super) const TERMINATE_V1: Self = Self(&Method::new("SandboxTerminate", "terminate sandbox"));
    pub(super) const TERMINATE_V2: Self = Self(&Method::new("SandboxTerminateV2", "terminate sandbox"));
    pub(super) const TAGS_V1: Self = Self(&Method::new("SandboxTagsGet", "read the tags of sandbox"));
    pub(super) const TAGS_V2: Self = Self(&Method::new("SandboxTagsGetV2", "read the tags of sandbox"));
    pub(super) const READ_RATES: Self = Self(&Method::new("WorkspaceBillingRates", "read the rates of"));
    pub(super) const READ_BILL: Self = Self(&Method::new("WorkspaceBillingReport", "read the billing report of App"));

    /// One of each method that the daemon calls, for metrics that show zero.
    pub(super) const METHODS: [Self; 24] = [
        Self::HELLO,
        Self::AUTHENTICATE,
        Self::LOOK_UP_APP,
        Self::READ_ENVIRONMENT,
        Self::READ_QUOTA,
        Self::FETCH_LOGS,
        Self::DEFINE_IMAGE,
        Self::FOLLOW_IMAGE,
        Self::STORE_SECRET,
        Self::ENSURE_VOLUME,
        Self::DELETE_SECRET,
        Self::CREATE_V1,
        Self::CREATE_V2,
        Self::LIST,
        Self::FIND_V1,
        Self::FIND_V2,
        Self::WAIT_V1,
        Self::WAIT_V2,
        Self::TERMINATE_V1,
        Self::TERMINATE_V2,
        Self::TAGS_V1,
        Self::TAGS_V2,
        Self::READ_RATES,
        Self::READ_BILL,
    ];

    /// Modal's name of the method, as a metric label.
    pub fn rpc(self) -> &'static str {
        self.0.rpc
    }

    /// Whether it makes something new each time it succeeds.
    pub(super) fn is_creating(self) -> bool {
        self.0.effect == Effect::Again
    }

    /// Whether it is one of the first calls, by which Modal refuses a client that it finds too old.
    pub(super) fn is_introduction(self) -> bool {
        [Self::HELLO, Self::AUTHENTICATE, Self::LOOK_UP_APP, Self::ENSURE_APP].contains(&self)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.purpose)
    }
}
