//! Names that come from outside: what is accepted is written back as it was, and nothing else is ours.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandrunner::ids::{AccountName, Deployment, Fingerprint, Labels, OurName, RepoName};

fuzz_target!(|text: &str| {
    if let Ok(name) = text.parse::<OurName>() {
        assert_eq!(name.to_string(), text);
        assert!(name.attempt > 0 && name.job.0 > 0);
    }
    if let Ok(repo) = text.parse::<RepoName>() {
        assert_eq!(repo.as_str(), text.to_ascii_lowercase());
        assert_eq!(format!("{}/{}", repo.owner(), repo.name()), repo.as_str());
        let tag = repo.as_tag();
        assert!(tag.len() <= 63 && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)), "{tag}");
    }
    if let Ok(name) = text.parse::<Deployment>() {
        assert_eq!((name.as_str(), text.parse::<AccountName>().is_ok()), (text, true));
    }
    if let Ok(fingerprint) = text.parse::<Fingerprint>() {
        assert_eq!(fingerprint.to_string(), text.to_lowercase());
    }
    let labels = Labels::new(text.split(','));
    assert_eq!(labels, Labels::new(labels.iter()));
    assert!(labels.covers(&labels) && labels.iter().all(|label| labels.contains(label)));
});
