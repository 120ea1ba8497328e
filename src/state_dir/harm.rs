//! What befalls the state directory of a simulated machine, while no process of it runs.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::place::Place;
use crate::ids::Deployment;
use crate::sim::Mishap;

/// A file of a program that is not there yet.
const FROM_FUTURE: &str = r#"{"version":1000,"rows":[]}"#;

/// Does to the files of `deployment` in `dir` what the mishap says; nothing where it does not concern them. Logs, which only
/// people read, are spared by all but [`Mishap::StateLost`].
///
/// # Errors
/// Where the directory cannot be changed.
pub fn harm(dir: &Path, deployment: &Deployment, mishap: Mishap) -> io::Result<()> {
    let places = ["evidence", "pages", "pauses"].map(|what| Place::new(dir, what, deployment));
    let each = |change: fn(&Place) -> io::Result<()>| {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        places.iter().try_for_each(change)
    };
    let costs = cost_files(dir)?;
    match mishap {
        Mishap::StateLost => match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        },
        Mishap::StateCorrupt => {
            costs.iter().try_for_each(|file| cut(file))?;
            each(halve)
        }
        Mishap::StateFromFuture => {
            costs.iter().try_for_each(|file| make_later(file))?;
            each(|place| fs::write(&place.path, FROM_FUTURE))
        }
        Mishap::StateReadOnly => {
            costs.iter().try_for_each(|file| block(file))?;
            each(close)
        }
        Mishap::StateFull => {
            costs.iter().try_for_each(|file| block(file))?;
            each(|place| {
                fs::write(&place.path, "")?;
                close(place)
            })
        }
        Mishap::ControllerKilled
        | Mishap::SecondController
        | Mishap::ClockHourAhead
        | Mishap::ClockHourBehind
        | Mishap::ClockDayAhead
        | Mishap::ClockDayBehind => Ok(()),
    }
}

/// The cost files of whatever deployment; there may be none yet.
fn cost_files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let files = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        files => files?,
    };
    let mut costs = Vec::new();
    for file in files {
        let path = file?.path();
        let is_cost = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("cost-"));
        costs.extend(is_cost.then_some(path).filter(|path| path.is_file()));
    }
    Ok(costs)
}

/// Leaves half of a file, which ends in the middle of a line then.
fn cut(file: &Path) -> io::Result<()> {
    let kept = fs::read(file)?;
    fs::write(file, &kept[..kept.len() / 2])
}

/// Makes every line one of a program that is not there yet.
fn make_later(file: &Path) -> io::Result<()> {
    fs::write(file, fs::read_to_string(file)?.replace("{\"v\":1,", "{\"v\":1000,"))
}

/// Puts a folder where a file was, which no process can write to.
fn block(file: &Path) -> io::Result<()> {
    fs::remove_file(file)?;
    fs::create_dir_all(file.join("taken"))
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
    use crate::state_dir::read_costs;

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
    fn cost_files_are_harmed_as_well() {
        let line = r#"{"v":1,"id":"sb-1","name":"n","account":"gh","repo":"a/b","class":"c","ended":"2026-11-21T00:00:00Z","usd":"1"}"#;
        let after = |mishap| {
            let dir = tempfile::tempdir().unwrap();
            let (file, deployment) = (dir.path().join("cost-main-2026-11.jsonl"), "main".parse().unwrap());
            fs::write(&file, format!("{line}\n")).unwrap();
            harm(dir.path(), &deployment, mishap).unwrap();
            let costs = read_costs(dir.path(), &deployment, chrono::DateTime::UNIX_EPOCH);
            let can_write = fs::OpenOptions::new().append(true).open(&file).is_ok();
            (costs.ok().map(|costs| (costs.entries.len(), costs.unreadable, costs.later)), can_write)
        };
        assert_eq!(after(Mishap::ControllerKilled), (Some((1, 0, 0)), true));
        assert_eq!(after(Mishap::StateCorrupt), (Some((0, 1, 0)), true));
        assert_eq!(after(Mishap::StateFromFuture), (Some((0, 0, 1)), true));
        assert_eq!([Mishap::StateReadOnly, Mishap::StateFull].map(after), [(None, false), (None, false)]);
    }

    #[test]
    fn it_befalls_also_where_nothing_was_kept_yet() {
        let dir = tempfile::tempdir().unwrap();
        for mishap in Mishap::ALL {
            harm(&dir.path().join(mishap.name()), &"main".parse().unwrap(), *mishap).unwrap();
        }
    }
}
