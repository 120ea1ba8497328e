//! What a GitHub App may be granted, as far as calls of Sandrunner's need it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

listed_enum! {
    /// A permission, by GitHub's name of it. `metadata: read` is always granted and stands nowhere here.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Permission {
        /// Runs and jobs of repositories.
        Actions,
        /// Among others the runners of repositories.
        Administration,
        /// Runners and runner groups of an organization.
        OrganizationSelfHostedRunners,
    }
}

/// How far a permission goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// To look.
    Read,
    /// To look and to change.
    Write,
}

/// What an owner has granted to the App.
pub type Grants = BTreeMap<Permission, Access>;

impl Permission {
    fn as_str(self) -> &'static str {
        match self {
            Self::Actions => "actions",
            Self::Administration => "administration",
            Self::OrganizationSelfHostedRunners => "organization_self_hosted_runners",
        }
    }

    /// What is granted where nobody says otherwise: what Sandrunner needs at both levels, and nothing more.
    pub(in crate::sim) fn all_granted() -> Grants {
        let access = |permission: Self| if permission == Self::Actions { Access::Read } else { Access::Write };
        Self::ALL.iter().map(|permission| (*permission, access(*permission))).collect()
    }
}

/// What a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sim) struct Need {
    pub(in crate::sim) permission: Permission,
    pub(in crate::sim) access: Access,
}

impl Need {
    pub(in crate::sim) fn is_met_by(self, grants: &Grants) -> bool {
        grants.get(&self.permission).is_some_and(|granted| *granted >= self.access)
    }
}

/// As in the header `X-Accepted-GitHub-Permissions`.
impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = match self.access {
            Access::Read => "read",
            Access::Write => "write",
        };
        write!(f, "{}={access}", self.permission.as_str())
    }
}
