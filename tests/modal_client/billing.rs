//! What Modal says that things cost, as the client reads it.

use std::time::Duration;

use chrono::TimeDelta;
use sandrunner::cost::Rates;
use sandrunner::error::ErrorClass;
use sandrunner::sim::Operation;
use sandrunner::state::Reading;
use tonic::Code;

use super::Sim;

#[tokio::test(start_paused = true)]
async fn rates_are_told_in_a_form_that_is_understood() {
    let sim = Sim::new();
    let told = sim.reader.billing_rates().await.unwrap();
    let (rates, of_table) = Rates::default().told(&told);
    assert_eq!(rates.cpu, "0.141912".parse().unwrap());
    assert_eq!(rates.memory, "0.024012".parse().unwrap());
    assert_eq!(rates.gpus["a10080gb"], "2.4984".parse().unwrap());
    let left: Vec<&str> = of_table.iter().map(String::as_str).collect();
    assert_eq!(left, ["a10", "b200", "b300", "l40s", "rtxpro6000"], "what the simulated Modal does not sell");
    sim.fail(Operation::Rates, Code::PermissionDenied, 1);
    let error = sim.reader.billing_rates().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Forbidden);
    assert!(error.to_string().contains("cannot read the rates of the workspace"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_ended_sandbox_and_the_report_tell_what_it_cost() {
    let (sim, mut spec) = Sim::prepared().await;
    spec.timeout = Duration::from_secs(1800);
    sim.writer.create_sandbox(&spec).await.unwrap();
    let began = sim.clock.now();
    sim.clock.sleep(Duration::from_secs(3600)).await;
    let all = [("deployment".to_owned(), "main".to_owned())].into();
    let Reading::Known(listed) = sim.reader.list_ended_sandboxes(&spec.app, &all, began - TimeDelta::hours(1)).await
    else {
        panic!("nothing went wrong")
    };
    let [ended] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!(ended.finished_at.unwrap() - ended.started_at.unwrap(), TimeDelta::minutes(30));
    assert_eq!(
        (ended.resources.milli_cpu, ended.resources.memory_mib, &ended.resources.gpu),
        (Some(2000), Some(4096), &None)
    );

    let days = (began - TimeDelta::days(1), sim.clock.now() + TimeDelta::days(1));
    let billed = sim.reader.billing_report(&spec.app, days, &["job"]).await.unwrap();
    let [item] = &billed[..] else { panic!("{billed:?}") };
    // Half an hour of two cores and four GiB.
    assert!((item.usd.dollars() - 0.189_936).abs() < 1e-9, "{item:?}");
    assert_eq!(item.tags, [("job".to_owned(), "7".to_owned())].into());
    assert_eq!(item.day.timestamp() % 86_400, 0);
    sim.fail(Operation::Bill, Code::PermissionDenied, 1);
    let error = sim.reader.billing_report(&spec.app, days, &[]).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Forbidden);
}
