//! The images of classes: the one in use, and why it is not the one that is wanted.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::ids::ImageId;

/// How often in a row an image could not be made, by what the reasons say: one that passes by itself makes no pause longer
/// that follows one that does not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Setbacks {
    /// For reasons that pass by themselves.
    pub passing: u32,
    /// For reasons that do not, or that cost a build to find out.
    pub lasting: u32,
}

/// The image of a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageState {
    /// It is being made.
    Building {
        /// Earlier failures in a row.
        failures: Setbacks,
    },
    /// It can be used.
    Ready(ImageId),
    /// It could not be made.
    Failed {
        /// Why, with the end of the build's log.
        message: Arc<str>,
        /// Failures in a row.
        failures: Setbacks,
        /// When it is asked for again.
        again_at: DateTime<Utc>,
    },
}

impl ImageState {
    /// The image, where it can be used.
    pub fn id(&self) -> Option<&ImageId> {
        match self {
            Self::Ready(id) => Some(id),
            Self::Building { .. } | Self::Failed { .. } => None,
        }
    }

    /// How often in a row it could not be made.
    pub fn failures(&self) -> Setbacks {
        match self {
            Self::Building { failures } | Self::Failed { failures, .. } => *failures,
            Self::Ready(_) => Setbacks::default(),
        }
    }
}

/// A class is served with an earlier image than its configuration asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overdue {
    /// Why.
    pub why: Arc<str>,
    /// How often in a row the wanted image could not be made.
    pub failures: Setbacks,
    /// When the wanted one is asked for again.
    pub again_at: DateTime<Utc>,
    /// The wanted one, where it is there and its runners did not come online.
    pub held: Option<ImageId>,
}
