//! The images that sandboxes start from, and their build.
//!
//! A definition is content-addressed at Modal: asking again for a known one is cheap and builds nothing, so
//! it is asked for at every start.

mod definition;

use std::time::Duration;

use chrono::{DateTime, Utc};
use tonic::Streaming;

use self::definition::Layer;
use super::api;
use super::call::{Call, Caller, PLAIN_LIMIT};
use super::error::{ModalError, Replies, plain};
use super::operation::Operation;
use super::transport::Client;
use super::writer::ModalWriter;
use crate::error::ErrorClass;
use crate::ids::{AppId, ImageId};

pub use self::definition::{Base, DOWNLOAD_TOKEN, ImageDefinition, RunnerContents, Steps, Tools};

/// The oldest builder that puts nothing of its own into an image.
const BUILDER_VERSION_MIN: &str = "2025.06";

/// How long Modal holds one stream of a build's log, in seconds (the official clients' value).
const STREAM_SECS: f32 = 55.0;

/// How long a stream may stay silent: what Modal holds it for, and a margin.
const SILENCE_LIMIT: Duration = Duration::from_secs(75);

/// The longest build. Modal ends a build by itself; this ends a stream that never tells.
const BUILD_LIMIT: Duration = Duration::from_secs(3600);

/// How often in a row a broken stream is opened again.
const REOPENINGS_MAX: u32 = 3;

/// The wait before a stream is opened again. Modal ends streams early as a matter of course.
const REOPEN_PAUSE: Duration = Duration::from_millis(250);

/// How long the log is read on after the result: the end of it may follow, as in the official client.
const AFTER_RESULT: Duration = Duration::from_secs(10);

/// How much of a log's end an error keeps.
const LOG_TAIL_BYTES: usize = 4 << 10;

/// What happens during a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildProgress {
    /// A layer was built earlier and is used as it is.
    Known {
        /// Its number, from 1.
        layer: usize,
        /// Of how many.
        layers: usize,
    },
    /// A layer is being built.
    Building {
        /// Its number, from 1.
        layer: usize,
        /// Of how many.
        layers: usize,
    },
    /// A piece of the builder's log, as the program in the builder wrote it.
    Log(String),
}

/// Makes sure that an image exists, building what is missing, and tells its id.
///
/// A layer whose build failed earlier is built again once.
///
/// # Errors
/// [`ModalError::Build`] with the end of the log where a layer cannot be built; others where Modal does not
/// do as asked.
pub async fn build(
    writer: &ModalWriter,
    app: &AppId,
    definition: &ImageDefinition,
    progress: impl FnMut(BuildProgress),
) -> Result<ImageId, ModalError> {
    make(writer, app, definition, None, progress).await
}

/// Layers that were built anew, each with what it was built on: in how many images one may be, it is built once, and what
/// stands on it stays known.
#[derive(Debug, Default)]
pub struct Rebuilt(Vec<(Layer, Option<ImageId>, ImageId)>);

impl Rebuilt {
    fn find(&self, layer: &Layer, below: Option<&ImageId>) -> Option<&ImageId> {
        let found = self.0.iter().find(|(known, on, _)| known == layer && on.as_ref() == below);
        found.map(|(_, _, id)| id)
    }
}

/// Builds an image also where Modal knows its definition, but for layers that were `rebuilt` before: what a name of a registry
/// means may have changed since. The one before can still be used, and is used where this fails.
///
/// # Errors
/// As for [`build`].
pub async fn rebuild(
    writer: &ModalWriter,
    app: &AppId,
    definition: &ImageDefinition,
    rebuilt: &mut Rebuilt,
    progress: impl FnMut(BuildProgress),
) -> Result<ImageId, ModalError> {
    make(writer, app, definition, Some(rebuilt), progress).await
}

async fn make(
    writer: &ModalWriter,
    app: &AppId,
    definition: &ImageDefinition,
    mut rebuilt: Option<&mut Rebuilt>,
    mut progress: impl FnMut(BuildProgress),
) -> Result<ImageId, ModalError> {
    let ImageDefinition { on, layers } = definition;
    let builder_version = builder_version(writer.caller()).await?;
    let force = if rebuilt.is_some() { Force::Yes } else { Force::No };
    let build = Build { caller: writer.caller(), app, builder_version, force };
    let mut below = on.clone();
    for (index, layer) in layers.iter().enumerate() {
        let number = Number { layer: index + 1, layers: layers.len() };
        let known = rebuilt.as_ref().and_then(|rebuilt| rebuilt.find(layer, below.as_ref())).cloned();
        let id = if let Some(id) = known {
            progress(BuildProgress::Known { layer: number.layer, layers: number.layers });
            id
        } else {
            let id = build.layer(number, layer, below.as_ref(), &mut progress).await?;
            if let Some(rebuilt) = &mut rebuilt {
                rebuilt.0.push((layer.clone(), below, id.clone()));
            }
            id
        };
        below = Some(id);
    }
    below.ok_or_else(|| ModalError::Definition { subject: "image".to_owned(), problem: "it has no layer".to_owned() })
}

/// The builder to ask for: the configured one or the environment's, raised to what a definition needs.
async fn builder_version(caller: &Caller) -> Result<String, ModalError> {
    let settings = &caller.settings;
    if let Some(version) = &settings.image_builder_version {
        return Ok(version.clone());
    }
    let name = if settings.environment.is_empty() { "(the token's default)" } else { &settings.environment };
    let call = Call::plain(Operation::READ_ENVIRONMENT, name);
    let message = api::EnvironmentGetOrCreateRequest {
        deployment_name: settings.environment.clone(),
        object_creation_type: api::ObjectCreationType::Unspecified.into(),
    };
    let send = |mut client: Client, request| async move { client.environment_get_or_create(request).await };
    let answer = caller.call(call, message, send).await?;
    let settings = answer.metadata.and_then(|metadata| metadata.settings).unwrap_or_default();
    Ok(raised(settings.image_builder_version))
}

/// Versions are months, which compare as text; any other form is newer than this knowledge.
fn raised(version: String) -> String {
    let is_month = version.len() == 7 && version.starts_with(|c: char| c.is_ascii_digit());
    let is_old = version.is_empty() || (is_month && version.as_str() < BUILDER_VERSION_MIN);
    if is_old { BUILDER_VERSION_MIN.to_owned() } else { version }
}

#[derive(Clone, Copy)]
struct Number {
    layer: usize,
    layers: usize,
}

struct Build<'a> {
    caller: &'a Caller,
    app: &'a AppId,
    builder_version: String,
    force: Force,
}

impl Build<'_> {
    async fn layer(
        &self,
        Number { layer, layers }: Number,
        definition: &Layer,
        below: Option<&ImageId>,
        progress: &mut impl FnMut(BuildProgress),
    ) -> Result<ImageId, ModalError> {
        let image = definition.image(below);
        let mut asked = self.ask(&image, self.force).await?;
        if asked.result.as_ref().is_some_and(|result| End::of(result).is_some_and(|end| end != End::Built)) {
            asked = self.ask(&image, Force::Yes).await?;
        }
        let id = ImageId::new(asked.image_id);
        let mut log = LogTail::default();
        let result = if let Some(result) = asked.result.filter(|result| result.status != 0) {
            progress(BuildProgress::Known { layer, layers });
            result
        } else {
            progress(BuildProgress::Building { layer, layers });
            self.follow(&id, &mut log, progress).await?
        };
        match End::of(&result) {
            Some(End::Built) => Ok(id),
            Some(End::Failed(class)) => {
                Err(ModalError::Build { layer, reason: reason(&result), class, log: log.into_text() })
            }
            None => unreachable!("a build is followed until it has ended"),
        }
    }

    async fn ask(&self, image: &api::Image, force: Force) -> Result<api::ImageGetOrCreateResponse, ModalError> {
        let first_line = image.dockerfile_commands.first().map_or("", String::as_str);
        let call = Call::plain(Operation::DEFINE_IMAGE, first_line);
        let message = api::ImageGetOrCreateRequest {
            image: Some(image.clone()),
            app_id: self.app.to_string(),
            force_build: force == Force::Yes,
            namespace: api::DeploymentNamespace::Unspecified.into(),
            builder_version: self.builder_version.clone(),
        };
        let send = |mut client: Client, request| async move { client.image_get_or_create(request).await };
        let answer = self.caller.call(call, message, send).await?;
        if answer.image_id.is_empty() { Err(call.unreadable("the answer holds no id")) } else { Ok(answer) }
    }

    /// Passes the log on until the build has ended.
    async fn follow(
        &self,
        id: &ImageId,
        log: &mut LogTail,
        progress: &mut impl FnMut(BuildProgress),
    ) -> Result<api::GenericResult, ModalError> {
        let call = Call { operation: Operation::FOLLOW_IMAGE, subject: id.as_str(), limit: SILENCE_LIMIT };
        let clock = self.caller.clock();
        let until = clock.now() + BUILD_LIMIT;
        let mut last_entry = String::new();
        let mut failures = 0;
        while clock.now() < until {
            let entry_before = last_entry.clone();
            let read = self.read_stream(call, &mut last_entry, |text| {
                log.push(&text);
                progress(BuildProgress::Log(text));
            });
            match read.await {
                Ok(Some(result)) => return Ok(result),
                Ok(None) => failures = 0,
                Err(error) => {
                    failures = if last_entry == entry_before { failures + 1 } else { 1 };
                    let is_broken = matches!(error.class(), ErrorClass::Unavailable | ErrorClass::Unsent);
                    if !is_broken || failures > REOPENINGS_MAX {
                        return Err(error);
                    }
                }
            }
            clock.sleep(REOPEN_PAUSE).await;
        }
        let status =
            tonic::Status::deadline_exceeded(format!("not built within {}", humantime::format_duration(BUILD_LIMIT)));
        Err(call.failed(self.caller.transport.refusal(call.operation, &status), Replies::All))
    }

    /// Reads one stream to its end, or for a moment after the result; tells the result if the stream did. Once it did,
    /// nothing that befalls the stream matters.
    async fn read_stream(
        &self,
        call: Call<'_>,
        last_entry: &mut String,
        mut log: impl FnMut(String),
    ) -> Result<Option<api::GenericResult>, ModalError> {
        let message = api::ImageJoinStreamingRequest {
            image_id: call.subject.to_owned(),
            timeout: STREAM_SECS,
            last_entry_id: last_entry.clone(),
            include_logs_for_finished: false,
        };
        let send = |mut client: Client, request| async move { client.image_join_streaming(request).await };
        let mut stream = self.caller.open(Call { limit: PLAIN_LIMIT, ..call }, message, send).await?;
        let clock = self.caller.clock();
        let mut ended: Option<(api::GenericResult, DateTime<Utc>)> = None;
        loop {
            let left = ended.as_ref().map(|(_, until)| (*until - clock.now()).to_std().unwrap_or_default());
            let entry = match self.next(call, left.unwrap_or(call.limit), &mut stream).await {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                Err(_) if ended.is_some() => return Ok(ended.map(|(result, _)| result)),
                Err(error) => return Err(error),
            };
            if !entry.entry_id.is_empty() {
                *last_entry = entry.entry_id;
            }
            entry.task_logs.into_iter().filter(|piece| !piece.data.is_empty()).for_each(|piece| log(piece.data));
            if let Some(result) = entry.result.filter(|result| result.status != 0 && ended.is_none()) {
                ended = Some((result, clock.now() + AFTER_RESULT));
            }
        }
        if let Ok(Some(trailers)) = stream.trailers().await {
            self.caller.transport.warnings.note_trailers(&trailers);
        }
        Ok(ended.map(|(result, _)| result))
    }

    async fn next(
        &self,
        call: Call<'_>,
        limit: Duration,
        stream: &mut Streaming<api::ImageJoinStreamingResponse>,
    ) -> Result<Option<api::ImageJoinStreamingResponse>, ModalError> {
        let entry = self.caller.clock().deadline(limit, stream.message()).await;
        let entry = entry.unwrap_or_else(|elapsed| Err(tonic::Status::deadline_exceeded(elapsed.to_string())));
        entry.map_err(|status| call.failed(self.caller.transport.refusal(call.operation, &status), Replies::All))
    }
}

/// Whether a layer that is known is built all the same.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Force {
    No,
    Yes,
}

/// How a build ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Built,
    Failed(ErrorClass),
}

impl End {
    /// None while it runs. Only a failure of the build's own commands is the definition's fault.
    fn of(result: &api::GenericResult) -> Option<Self> {
        match result.status {
            0 => None,
            1 => Some(Self::Built),
            2 => Some(Self::Failed(ErrorClass::Invalid)),
            _ => Some(Self::Failed(ErrorClass::Unavailable)),
        }
    }
}

fn reason(result: &api::GenericResult) -> String {
    let text = plain(&result.exception);
    let status = match result.status {
        2 => "a command failed",
        3 => "it was ended from outside",
        4 => "it took too long",
        8 => "the builder ran out of memory",
        _ => "Modal failed",
    };
    if text.is_empty() { status.to_owned() } else { format!("{status}: {text}") }
}

/// The end of a log.
#[derive(Debug, Default)]
struct LogTail(String);

impl LogTail {
    fn push(&mut self, text: &str) {
        self.0.push_str(text);
        if self.0.len() > LOG_TAIL_BYTES {
            let excess = self.0.len() - LOG_TAIL_BYTES;
            let cut = (excess..self.0.len()).find(|&at| self.0.is_char_boundary(at)).unwrap_or(self.0.len());
            self.0.drain(..cut);
        }
    }

    fn into_text(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builder_is_new_enough_and_never_older_than_the_environments() {
        for (version, expected) in
            [("", "2025.06"), ("2024.10", "2025.06"), ("2026.10", "2026.10"), ("PREVIEW", "PREVIEW")]
        {
            assert_eq!(raised(version.to_owned()), expected);
        }
    }

    #[test]
    fn the_tail_of_a_log_is_bounded_and_whole_characters() {
        let mut log = LogTail::default();
        for _ in 0..1000 {
            log.push("schön\n");
        }
        log.push("last");
        let text = log.into_text();
        assert!((LOG_TAIL_BYTES - 3..=LOG_TAIL_BYTES).contains(&text.len()), "{}", text.len());
        assert!(text.ends_with("schön\nlast"));
    }

    #[test]
    fn only_a_failed_command_is_the_definitions_fault() {
        let end = |status| End::of(&api::GenericResult { status, ..Default::default() });
        assert_eq!(end(0), None);
        assert_eq!(end(1), Some(End::Built));
        assert_eq!(end(2), Some(End::Failed(ErrorClass::Invalid)));
        for status in [3, 4, 6, 8, 99] {
            assert_eq!(end(status), Some(End::Failed(ErrorClass::Unavailable)), "{status}");
        }
    }
}
