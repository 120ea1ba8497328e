//! Which workflow a run runs, and which workflows the runners of a group are kept to.
//!
//! A runner of a group that is kept to workflows gets only jobs that are written in one of them; GitHub leaves all others
//! queued and does not say why. What GitHub says of a run does not always tell whose its jobs are, and a job that is held
//! back by mistake waits for ever: so a run is refused only where that is certain.

use serde::{Deserialize, Serialize};

use crate::ids::RepoName;

/// The file of a workflow, at a branch, a tag or a commit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WorkflowFile {
    /// Its repository; none for that of the run.
    pub repo: Option<RepoName>,
    /// Its path there, such as `.github/workflows/ci.yml`.
    pub path: String,
    /// The branch, tag or commit, where it is stated.
    pub at: Option<String>,
}

/// Where workflows are in a repository.
const FOLDER: &str = ".github/workflows/";

impl WorkflowFile {
    /// Reads `[owner/name/].github/workflows/ci.yml[@ref]`, the forms in which GitHub names workflows; none where the text
    /// has another.
    pub fn read(text: &str) -> Option<Self> {
        // A branch or a tag may hold an `@`, and so may the name of a file.
        let end = [".yml@", ".yaml@"].iter().filter_map(|mark| Some(text.find(mark)? + mark.len() - 1)).min();
        let (file, at) = end.map_or((text, None), |end| (&text[..end], Some(&text[end + 1..])));
        let (place, name) = file.split_once(FOLDER)?;
        let is_file =
            [".yml", ".yaml"].iter().any(|extension| name.len() > extension.len() && name.ends_with(extension));
        if !is_file || at.is_some_and(str::is_empty) {
            return None;
        }
        let repo = if place.is_empty() { None } else { Some(place.strip_suffix('/')?.parse().ok()?) };
        Some(Self { repo, path: format!("{FOLDER}{name}"), at: at.map(str::to_owned) })
    }
}

/// The most characters of a tag (Modal).
const TAG_MAX: usize = 63;

impl WorkflowFile {
    /// The name of the file in the form of a tag, cut where it is too long; none where nothing of it can stand in one.
    pub fn as_tag(&self) -> Option<String> {
        let name = self.path.rsplit('/').next()?;
        let fits = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
        let tag: String = name.chars().map(fits).take(TAG_MAX).collect();
        tag.chars().any(|c| c.is_ascii_alphanumeric()).then_some(tag)
    }
}

impl std::fmt::Display for WorkflowFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(repo) = &self.repo {
            write!(f, "{repo}/")?;
        }
        f.write_str(&self.path)?;
        self.at.as_ref().map_or(Ok(()), |at| write!(f, "@{at}"))
    }
}

/// What a run runs, as far as GitHub says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workflow {
    /// The workflow that was started.
    pub file: WorkflowFile,
    /// The branch or tag that it is for: usually where the file was read, but not always.
    pub branch: Option<String>,
    /// Where its jobs are written.
    pub jobs: WrittenIn,
}

/// Where the jobs of a run are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WrittenIn {
    /// In the workflow that was started.
    #[serde(rename = "own")]
    Own,
    /// Some in workflows that it calls, or GitHub does not say.
    #[serde(rename = "others")]
    OthersToo,
}

/// The workflows whose jobs the runners of a group take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdmittedWorkflows {
    /// Those of all, or GitHub does not say.
    All,
    /// Those of some.
    Selected(Vec<SelectedWorkflow>),
}

/// A workflow that a group is kept to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SelectedWorkflow {
    /// This one.
    File(WorkflowFile),
    /// It is named in a form that is not known.
    Odd(String),
}

/// Whether the runners of a group take the jobs of a run, as far as its workflow goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// GitHub gives them none.
    Refused,
    /// What is known does not tell.
    Unsure,
    /// They do.
    Admitted,
}

impl AdmittedWorkflows {
    /// Whether they take the jobs of a run of a repository; `workflow` is none where GitHub does not say what it runs.
    pub fn fit(&self, workflow: Option<&Workflow>, repo: &RepoName) -> Fit {
        let Self::Selected(selected) = self else { return Fit::Admitted };
        if selected.is_empty() {
            return Fit::Refused;
        }
        let Some(workflow) = workflow else { return Fit::Unsure };
        let own = selected.iter().map(|selected| selected.fit(workflow, repo)).max().unwrap_or(Fit::Refused);
        match workflow.jobs {
            WrittenIn::Own => own,
            WrittenIn::OthersToo => own.max(Fit::Unsure),
        }
    }
}

impl SelectedWorkflow {
    /// Reads `owner/name/.github/workflows/ci.yml@ref` (GitHub API: `selected_workflows` of a runner group).
    pub fn read(text: &str) -> Self {
        let file = WorkflowFile::read(text).filter(|file| file.repo.is_some() && file.at.is_some());
        file.map_or_else(|| Self::Odd(text.to_owned()), Self::File)
    }

    fn fit(&self, workflow: &Workflow, repo: &RepoName) -> Fit {
        let Self::File(selected) = self else { return Fit::Unsure };
        let started = &workflow.file;
        if selected.repo.as_ref() != Some(started.repo.as_ref().unwrap_or(repo)) || selected.path != started.path {
            return Fit::Refused;
        }
        let Some(wanted) = &selected.at else { return Fit::Unsure };
        match &started.at {
            Some(at) if short(at) == short(wanted) => Fit::Admitted,
            // A commit may be that of the branch.
            Some(at) if is_commit(at) || is_commit(wanted) => Fit::Unsure,
            Some(_) => Fit::Refused,
            None if workflow.branch.as_deref().map(short) == Some(short(wanted)) => Fit::Admitted,
            None => Fit::Unsure,
        }
    }
}

impl std::fmt::Display for SelectedWorkflow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(file) => file.fmt(f),
            Self::Odd(text) => f.write_str(text),
        }
    }
}

/// A branch or tag without what says which of both it is.
fn short(reference: &str) -> &str {
    let name = reference.strip_prefix("refs/heads/").or_else(|| reference.strip_prefix("refs/tags/"));
    name.unwrap_or(reference)
}

fn is_commit(reference: &str) -> bool {
    reference.len() == 40 && reference.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "1595d4b6de6a9e9751fb270a41019ce507d4099e";

    fn file(repo: Option<&str>, path: &str, at: Option<&str>) -> WorkflowFile {
        WorkflowFile { repo: repo.map(|repo| repo.parse().unwrap()), path: path.to_owned(), at: at.map(str::to_owned) }
    }

    #[test]
    fn the_forms_in_which_github_names_workflows_are_read_and_written() {
        let ci = ".github/workflows/ci.yml";
        for (text, expected) in [
            (".github/workflows/ci.yml", file(None, ci, None)),
            (".github/workflows/ci.yml@main", file(None, ci, Some("main"))),
            ("acme/web/.github/workflows/ci.yml@refs/heads/a@b", file(Some("acme/web"), ci, Some("refs/heads/a@b"))),
            (".github/workflows/a@b.yaml", file(None, ".github/workflows/a@b.yaml", None)),
        ] {
            let read = WorkflowFile::read(text).unwrap();
            assert_eq!((read.to_string().as_str(), read), (text, expected));
        }
        for odd in [
            "",
            "ci.yml",
            "dynamic/pages",
            ".github/workflows/.yml",
            ".github/workflows/ci",
            "web/.github/workflows/ci.yml",
        ] {
            assert_eq!(WorkflowFile::read(odd), None, "{odd}");
        }
        assert_eq!(WorkflowFile::read(".github/workflows/ci.yml@"), None);
    }

    #[test]
    fn a_run_is_refused_only_where_it_is_certain_that_none_of_its_jobs_is_written_in_a_selected_workflow() {
        let repo: RepoName = "acme/web".parse().unwrap();
        let run =
            |text: &str, jobs| Workflow { file: WorkflowFile::read(text).unwrap(), branch: Some("dev".into()), jobs };
        let fit = |selected: &[&str], workflow: Option<&Workflow>| {
            let selected = selected.iter().map(|text| SelectedWorkflow::read(text)).collect();
            AdmittedWorkflows::Selected(selected).fit(workflow, &repo)
        };
        let own = |selected: &str, text: &str| fit(&[selected], Some(&run(text, WrittenIn::Own)));
        let ci = "acme/web/.github/workflows/ci.yml@refs/heads/main";
        for (text, expected) in [
            (".github/workflows/ci.yml@main", Fit::Admitted),
            ("Acme/Web/.github/workflows/ci.yml@refs/heads/main", Fit::Admitted),
            (".github/workflows/ci.yml@refs/pull/7/merge", Fit::Refused),
            (".github/workflows/ci.yml", Fit::Unsure),
            (".github/workflows/CI.yml@main", Fit::Refused),
            (".github/workflows/deploy.yml", Fit::Refused),
            ("acme/api/.github/workflows/ci.yml@main", Fit::Refused),
        ] {
            assert_eq!(own(ci, text), expected, "{text}");
        }
        assert_eq!(own("acme/web/.github/workflows/ci.yml@dev", ".github/workflows/ci.yml"), Fit::Admitted);
        let pinned = format!("acme/web/.github/workflows/ci.yml@{COMMIT}");
        assert_eq!(own(&pinned, ".github/workflows/ci.yml@main"), Fit::Unsure);
        assert_eq!(own(&pinned, &format!(".github/workflows/ci.yml@{COMMIT}")), Fit::Admitted);
        let deploy = run(".github/workflows/deploy.yml@main", WrittenIn::Own);
        assert_eq!(fit(&[ci, "acme/web/.github/workflows/deploy.yml@main"], Some(&deploy)), Fit::Admitted);
        assert_eq!(fit(&[ci, "in a form to come"], Some(&deploy)), Fit::Unsure);
        assert_eq!((fit(&[], Some(&deploy)), fit(&[ci], None)), (Fit::Refused, Fit::Unsure));
        let calling = run(".github/workflows/deploy.yml@main", WrittenIn::OthersToo);
        assert_eq!(fit(&[ci], Some(&calling)), Fit::Unsure);
        assert_eq!(AdmittedWorkflows::All.fit(None, &repo), Fit::Admitted);
    }
}
