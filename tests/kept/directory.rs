//! The file in its directory: when it is written, and what every trouble with it comes to.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use sandrunner::evidence::Evidence;
use sandrunner::state_dir::{Keeper, open};
use tempfile::TempDir;

use crate::situation::{Situation, now};
use crate::{encode, settings};

fn at(seconds: i64) -> DateTime<Utc> {
    now() + TimeDelta::seconds(seconds)
}

fn evidence(jobs: &str) -> Evidence {
    Situation::parse(jobs).evidence
}

async fn opened(dir: &Path) -> (Evidence, Option<Keeper>) {
    open(dir, &"main".parse().unwrap(), settings(), now()).await
}

fn file(dir: &Path) -> PathBuf {
    dir.join("evidence-main.json")
}

/// Saves by ending.
async fn keep(dir: &Path, evidence: &Evidence) {
    let (_, keeper) = opened(dir).await;
    keeper.unwrap().finish(evidence, now()).await;
}

/// Waits for the save under way by offering again and again at the same time, at which none is due.
async fn settled(keeper: &mut Keeper, evidence: &Evidence, when: DateTime<Utc>) {
    while keeper.is_saving() {
        tokio::task::yield_now().await;
        keeper.offer(evidence, when);
    }
}

#[tokio::test]
async fn what_is_saved_is_read_again() {
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("made/on/the/way");
    let kept = evidence("job 7 acme/web queued 40s; fruitless 7 2 10s");
    keep(&dir, &kept).await;
    let (read, _) = opened(&dir).await;
    assert_eq!(read.jobs, kept.jobs);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file(&dir)), mode(&dir)), (0o600, 0o700));
    let names: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["evidence-main.json"], "nothing else is left");
}

#[tokio::test]
async fn deployments_share_a_directory() {
    let scratch = TempDir::new().unwrap();
    keep(scratch.path(), &evidence("job 7 acme/web queued")).await;
    let (read, keeper) = open(scratch.path(), &"other".parse().unwrap(), settings(), now()).await;
    assert!(read.jobs.is_empty());
    keeper.unwrap().finish(&read, now()).await;
    assert_eq!(opened(scratch.path()).await.0.jobs.len(), 1);
}

#[tokio::test]
async fn what_is_worthless_is_replaced() {
    let scratch = TempDir::new().unwrap();
    let kept = evidence("job 7 acme/web queued");
    let whole = encode(&kept, settings()).unwrap();
    for text in ["", "{", "\0\0\0\0", &whole[..whole.len() - 1], &whole.replace("job", "jop")] {
        fs::write(file(scratch.path()), text).unwrap();
        let (read, keeper) = opened(scratch.path()).await;
        assert!(read.jobs.is_empty() && read.names.is_empty(), "{text}");
        keeper.unwrap().finish(&kept, now()).await;
        assert_eq!(opened(scratch.path()).await.0.jobs.len(), 1, "{text}");
    }
}

#[tokio::test]
async fn what_may_be_of_use_to_others_is_left_as_it_is() {
    let scratch = TempDir::new().unwrap();
    let newer = r#"{"version":99,"rows":[]}"#;
    fs::write(file(scratch.path()), newer).unwrap();
    let (read, keeper) = opened(scratch.path()).await;
    assert!(read.jobs.is_empty() && keeper.is_none());
    assert_eq!(fs::read_to_string(file(scratch.path())).unwrap(), newer);

    fs::remove_file(file(scratch.path())).unwrap();
    fs::create_dir(file(scratch.path())).unwrap();
    assert!(opened(scratch.path()).await.1.is_none(), "a directory in the place of the file");

    fs::remove_dir(file(scratch.path())).unwrap();
    std::os::unix::fs::symlink("/dev/zero", file(scratch.path())).unwrap();
    assert!(opened(scratch.path()).await.1.is_none(), "a device without end");
}

#[tokio::test]
async fn a_link_in_the_place_of_the_new_file_is_not_followed() {
    let scratch = TempDir::new().unwrap();
    let victim = scratch.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, scratch.path().join("evidence-main.json.new")).unwrap();
    keep(scratch.path(), &evidence("job 7 acme/web queued")).await;
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert_eq!(opened(scratch.path()).await.0.jobs.len(), 1);
}

#[tokio::test]
async fn saves_are_ten_seconds_apart_and_only_of_what_changed() {
    let scratch = TempDir::new().unwrap();
    let (mut known, keeper) = opened(scratch.path()).await;
    let mut keeper = keeper.unwrap();
    let path = file(scratch.path());
    keeper.offer(&known, at(0));
    settled(&mut keeper, &known, at(0)).await;
    assert!(path.exists(), "the first pass shows whether it can be written");

    known = evidence("job 7 acme/web queued");
    fs::remove_file(&path).unwrap();
    keeper.offer(&known, at(9));
    assert!(!keeper.is_saving(), "it is not due");
    keeper.offer(&known, at(10));
    settled(&mut keeper, &known, at(10)).await;
    assert!(path.exists());

    fs::remove_file(&path).unwrap();
    keeper.offer(&known, at(20));
    settled(&mut keeper, &known, at(20)).await;
    assert!(!path.exists(), "it was written although nothing changed");
}

#[tokio::test]
async fn a_save_that_fails_is_tried_again_after_pauses_that_grow() {
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("state");
    fs::write(&dir, "a file in the place of the directory").unwrap();
    let (known, keeper) = opened(&dir).await;
    let mut keeper = keeper.unwrap();
    let mut tried = Vec::new();
    for second in 0..75 {
        keeper.offer(&known, at(second));
        if keeper.is_saving() {
            tried.push(second);
            settled(&mut keeper, &known, at(second)).await;
        }
    }
    assert_eq!(tried, [0, 10, 30, 70]);
    fs::remove_file(&dir).unwrap();
    keeper.offer(&known, at(149));
    assert!(!keeper.is_saving());
    keeper.offer(&known, at(150));
    settled(&mut keeper, &known, at(150)).await;
    assert!(file(&dir).exists());
}
