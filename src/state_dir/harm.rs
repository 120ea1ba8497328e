//! What befalls the state directory of a simulated machine, while no process of it runs.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::place::Place;
use crate::ids::Deployment;
use crate::sim::Mishap;

/// A file of a program that is not there yet.
const FROM_FUTURE: &str = r#"{"version":1000,"rows":[]}"#;

/// Does to the files of `deployment` in `dir` what the mishap says; nothing where it does not concern them.
///
/// # Errors
/// Where the directory cannot be changed.
pub fn harm(dir: &Path, deployment: &Deployment, mishap: Mishap) -> io::Result<()> {
    let places = ["evidence", "pages"].map(|what| Place::new(dir, what, deployment));
    let each = |change: fn(&Place) -> io::Result<()>| {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        places.iter().try_for_each(change)
    };
    match mishap {
        Mishap::StateLost => match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        },
        Mishap::StateCorrupt => each(halve),
        Mishap::StateFromFuture => each(|place| fs::write(&place.path, FROM_FUTURE)),
        Mishap::StateReadOnly => each(close),
        Mishap::StateFull => each(|place| {
            fs::write(&place.path, "")?;
            close(place)
        }),
        Mishap::ControllerKilled
        | Mishap::SecondController
        | Mishap::ClockHourAhead
        | Mishap::ClockHourBehind
        | Mishap::ClockDayAhead
        | Mishap::ClockDayBehind => Ok(()),
    }
}

/// Leaves half of the file; there may be none yet.
fn halve(place: &Place) -> io::Result<()> {
    match fs::read(&place.path) {
        Ok(kept) => fs::write(&place.path, &kept[..kept.len() / 2]),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Keeps the file from being replaced, also by a user whom no permission stops: where the new one would be written
/// first, stands a folder with something in it.
fn close(place: &Place) -> io::Result<()> {
    // What a kill left half written.
    if place.temporary.is_file() {
        fs::remove_file(&place.temporary)?;
    }
    fs::create_dir_all(place.temporary.join("taken"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &[u8] = b"what was kept";

    /// What a start finds of the first file after a mishap, and whether it can be replaced then.
    fn after(mishap: Mishap) -> (Option<String>, bool) {
        let dir = tempfile::tempdir().unwrap();
        let (dir, deployment) = (dir.path().join("state"), "main".parse().unwrap());
        let place = Place::new(&dir, "evidence", &deployment);
        place.replace(OLD).unwrap();
        harm(&dir, &deployment, mishap).unwrap();
        let found = place.read(100).unwrap().map(|text| String::from_utf8(text).unwrap());
        (found, place.replace(OLD).is_ok())
    }

    #[test]
    fn a_start_finds_what_the_mishap_says() {
        let found = |text: &str| Some(text.to_owned());
        assert_eq!(after(Mishap::ControllerKilled), (found("what was kept"), true));
        assert_eq!(after(Mishap::StateLost), (None, true));
        assert_eq!(after(Mishap::StateCorrupt), (found("what w"), true));
        assert_eq!(after(Mishap::StateFromFuture), (found(FROM_FUTURE), true));
        assert_eq!(after(Mishap::StateReadOnly), (found("what was kept"), false));
        assert_eq!(after(Mishap::StateFull), (found(""), false));
    }

    #[test]
    fn it_befalls_also_where_nothing_was_kept_yet() {
        let dir = tempfile::tempdir().unwrap();
        for mishap in Mishap::ALL {
            harm(&dir.path().join(mishap.name()), &"main".parse().unwrap(), *mishap).unwrap();
        }
    }
}
