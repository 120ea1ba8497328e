//! Asks Modal.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::{join, join_all};

use super::Context;
use crate::act::REGISTRY_KEYS;
use crate::check::facts::{Failed, ModalFacts, Told};
use crate::class::{ImageBase, ImageSource};
use crate::config::Settings;
use crate::ids::ImageId;
use crate::modal::ModalReader;
use crate::state_dir::{BuildLogs, BuildRecord};

pub(super) async fn gather(context: &Context<'_>) -> ModalFacts {
    let reader = &context.clients.modal.0;
    let builds = builds(context.settings);
    if let Err(error) = context.progress.step(reader.hello()).await {
        let failed = Failed::from(error);
        return ModalFacts {
            token: Err(failed.clone()),
            environments: Err(failed.clone()),
            app: Err(failed),
            images: BTreeMap::new(),
            secrets: BTreeMap::new(),
            builds,
        };
    }
    let environments = async { reader.environments().await.map_err(Failed::from) };
    let app = async { reader.lookup_app().await.map(|app| app.is_some()).map_err(Failed::from) };
    let step = |of_environment, of_app| join(context.progress.step(of_environment), context.progress.step(of_app));
    let of_workspace = step(environments, app);
    let of_objects = join(images(context, reader), secrets(context, reader));
    let ((environments, app), (images, secrets)) = join(of_workspace, of_objects).await;
    ModalFacts { token: Ok(()), environments, app, images, secrets, builds }
}

/// The images that classes name by their ids, or that theirs are made on.
async fn images(context: &Context<'_>, reader: &ModalReader) -> BTreeMap<ImageId, Told<bool>> {
    let id_of = |source: &ImageSource| match source {
        ImageSource::Existing(id) => Some(ImageId::new(id.as_str())),
        ImageSource::Recipe(recipe) => match &recipe.base {
            ImageBase::Existing(id) => Some(ImageId::new(id.as_str())),
            ImageBase::Default { .. } | ImageBase::Registry(_) => None,
        },
        ImageSource::Default { .. } | ImageSource::Registry(_) => None,
    };
    let ids: BTreeSet<ImageId> = context.settings.images.iter().filter_map(id_of).collect();
    let look = |id: ImageId| async move {
        let told = context.progress.step(reader.has_image(&id)).await.map_err(Failed::from);
        (id, told)
    };
    join_all(ids.into_iter().map(look)).await.into_iter().collect()
}

/// The Secrets that classes and images name, each with what it must hold.
async fn secrets(context: &Context<'_>, reader: &ModalReader) -> BTreeMap<String, Told<()>> {
    let of_classes = context.settings.policy.classes.iter().flat_map(|class| &class.options.secrets);
    let registry_secret = |source: &ImageSource| match source {
        ImageSource::Recipe(recipe) => recipe.registry_secret.clone(),
        ImageSource::Default { .. } | ImageSource::Registry(_) | ImageSource::Existing(_) => None,
    };
    let mut wanted: BTreeMap<String, &[&str]> = of_classes.map(|name| (name.clone(), &[][..])).collect();
    let of_images = context.settings.images.iter().filter_map(registry_secret);
    wanted.extend(of_images.map(|name| (name, &REGISTRY_KEYS[..])));
    let look = |(name, keys): (String, &'static [&'static str])| async move {
        let told = context.progress.step(reader.find_secret_with(&name, keys)).await;
        (name, told.map(drop).map_err(Failed::from))
    };
    join_all(wanted.into_iter().map(look)).await.into_iter().collect()
}

/// The last build of each image; what cannot be read is none, and `sandrunner image list` tells of that.
fn builds(settings: &Settings) -> BTreeMap<String, BuildRecord> {
    let Some(dir) = &settings.state_dir else { return BTreeMap::new() };
    let kept = BuildLogs::new(dir, &settings.policy.deployment).list().unwrap_or_default();
    // The newest comes first, and stays.
    kept.into_iter().rev().map(|build| (build.record.image.clone(), build.record)).collect()
}
