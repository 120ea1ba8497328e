//! Known-bad variants of the controller, for the tests of its tests.
//!
//! Each [`Mutant`] is a mistake that is easy to make and hard to see: what a controller of this kind was seen to
//! get wrong, or what a rule of this one is there to prevent. The place where it would be made asks `is`. Without
//! the feature `mutants` the answer is a constant "no", so that nothing of a variant is in any binary; with it, a
//! test chooses one per thread. `tests/faults` shows that the checker tells each variant from the real controller.

macro_rules! mutants {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// A mistake.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mutant {
            $($(#[$doc])* $name,)+
        }

        #[cfg(feature = "mutants")]
        impl Mutant {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$name),+];
        }
    };
}

mutants! {
    /// Sandboxes are created before it is known which there are.
    FleetUnread,
    /// A created sandbox does not count until a list shows it.
    NoExpectation,
    /// A create whose answer was lost is forgotten.
    UnsureForgotten,
    /// A create that timed out is taken for one that failed.
    TimeoutIsNotCreated,
    /// A mint that timed out is sent again at once.
    MintRetriedBlindly,
    /// After a failed create the config is used for another sandbox.
    ConfigReused,
    /// The config is minted long before the sandbox is asked for.
    ConfigKept,
    /// The name that somebody else took is not waited for.
    NameTakenIgnored,
    /// The next attempt uses the name of the last one.
    AttemptNotAdvanced,
    /// A pause that GitHub asked for is not kept.
    HoldIgnored,
    /// A sandbox that one list lacks has ended.
    MissingIsGone,
    /// A sandbox that Modal says once not to know has ended.
    OneDenialIsGone,
    /// One reading is enough to destroy.
    ReapAtFirstMiss,
    /// What was registered a moment ago may be destroyed.
    GraceIgnored,
    /// A list of which a part is missing is taken for the whole.
    PartialIsFull,
    /// Of GitHub's lists the first page is read.
    FirstPageOnly,
    /// Of Modal's list the first page is read.
    FirstFleetPageOnly,
    /// Only runs that a filtered list shows exist.
    FilteredListOnly,
    /// With a new version of a page its old rows are kept.
    OldRowsKept,
    /// Pages are kept by their address alone, whoever's they are.
    CacheKeyWithoutCredential,
    /// A runner that is not shown as busy does nothing, and may go.
    BusyTrusted,
    /// A runner that never came online is waited for without end.
    NeverOnlineIsSupply,
    /// A runner with a job counts as free.
    ClaimedIsSupply,
    /// A runner that ended had no job that an older reading shows as queued.
    EndedServedNothing,
    /// A runner that became busy leaves supply before its job leaves demand.
    BusyLeavesAtOnce,
    /// A job that several runners waited for in vain is never looked at again.
    GhostForEver,
    /// Runners count for jobs of every label set.
    LabelsIgnored,
    /// A sandbox that another process made is not counted.
    ListedNotCounted,
    /// Creates under way take no room.
    LimitWithoutInFlight,
    /// A sandbox that failed, or is asked to end, takes no room.
    EndingTakesNoRoom,
    /// The limit of a repository is not kept.
    RepoLimitIgnored,
    /// The limit of GPUs is not kept.
    GpuLimitIgnored,
    /// The limit of a class is not kept.
    ClassLimitIgnored,
    /// A failed start is terminated although GitHub may give it a job.
    TerminatedUnfenced,
    /// A fenced sandbox is terminated without another look.
    TerminatedUnsettled,
    /// Runners of another deployment are ours.
    OtherDeploymentIsOurs,
    /// Registrations without a sandbox are not looked for after a failed create.
    LeftoversUnread,
    /// Secrets are not deleted.
    SecretsKept,
    /// Secrets are deleted before they were read.
    SecretDeletedEarly,
    /// Readings may use up the requests that are kept for writes.
    ReserveIgnored,
    /// Old runs that are re-run are not looked for.
    SweepsLeftOut,
    /// Whose jobs an organization's runners take is decided by the names in the configuration alone.
    PatternsForgotten,
}

#[cfg(feature = "mutants")]
thread_local! {
    static CHOSEN: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Makes whatever runs on this thread from now on the variant; none for the real controller.
#[cfg(feature = "mutants")]
pub fn choose(mutant: Option<Mutant>) {
    CHOSEN.set(mutant);
}

/// Whether this is that variant.
#[cfg(feature = "mutants")]
pub(crate) fn is(mutant: Mutant) -> bool {
    CHOSEN.get() == Some(mutant)
}

/// Whether this is that variant: it never is.
#[cfg(not(feature = "mutants"))]
pub(crate) const fn is(_mutant: Mutant) -> bool {
    false
}
