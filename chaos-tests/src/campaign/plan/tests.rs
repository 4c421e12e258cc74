use flott_decoders::Seeds;

use super::*;

fn wanted() -> Wanted {
    Wanted {
        target: Target::Netns,
        length: Duration::from_secs(60),
        kinds: Kind::USUAL.to_vec(),
        all_kinds: false,
        workloads: None,
        records_per_second: None,
        size: None,
    }
}

#[test]
fn a_seed_means_the_same_plan_and_json_gives_it_back() {
    for seed in 0..50 {
        let plan = Plan::from_seed(seed, &wanted());
        assert_eq!(plan, Plan::from_seed(seed, &wanted()));
        let json = serde_json::to_string(&plan).unwrap();
        let read: Plan = serde_json::from_str(&json).unwrap();
        assert_eq!((read.digest(), &read), (plan.digest(), &plan));
        assert_eq!(plan.complaints(), Vec::<String>::new(), "{plan:?}");
    }
    assert_ne!(Plan::from_seed(1, &wanted()), Plan::from_seed(2, &wanted()));
}

#[test]
fn seeds_of_local_go_on_to_mean_what_they_have_meant() {
    let of_local = |kind: &Kind| kind.is_drawn_on(Target::Local);
    let wanted = Wanted {
        target: Target::Local,
        kinds: Kind::USUAL.into_iter().filter(of_local).collect(),
        ..wanted()
    };
    // From before there was another target.
    for (seed, digest) in [
        (1, "d630efaecc6b9c6b"),
        (2, "6587f3736e5e423f"),
        (7, "ffbb11ea7d1d9858"),
        (8, "618a759e8a34210d"),
        (9, "9529f3092b849473"),
    ] {
        let plan = Plan::from_seed(seed, &wanted);
        assert_eq!(plan.digest(), digest, "{plan:?}");
        let json = serde_json::to_value(&plan).unwrap();
        assert!(json.get("target").is_none(), "{json}");
    }
    let of_frames = |kind: &Kind| kind.is_of_frames();
    assert!(!wanted.kinds.iter().any(of_frames));
}

#[test]
fn a_plan_for_a_cluster_that_is_there_fits_on_it() {
    let size = Size {
        jobmanagers: 5,
        taskmanagers: 2,
        slots: 1,
    };
    let on_remote = |kind: &Kind| kind.is_drawn_on(Target::Remote);
    let wanted = Wanted {
        target: Target::Remote,
        kinds: Kind::all().filter(on_remote).collect(),
        size: Some(size),
        ..wanted()
    };
    for seed in 0..50 {
        let plan = Plan::from_seed(seed, &wanted);
        let knobs = &plan.knobs;
        assert_eq!(
            (knobs.jobmanagers, knobs.taskmanagers, knobs.slots),
            (5, 2, 1)
        );
        assert!((1..=2).contains(&knobs.parallelism) && knobs.settings.is_empty());
        let rescales = plan.steps.iter().filter(|step| step.kind == Kind::Rescale);
        assert!(rescales.into_iter().all(|step| step.amount == 1));
        assert!(plan.kinds().iter().all(on_remote) && plan.complaints().is_empty());
    }
}

#[test]
fn plans_differ_in_what_they_leave_out_and_together_have_everything() {
    let plans: Vec<Plan> = (0..200)
        .map(|seed| Plan::from_seed(seed, &wanted()))
        .collect();
    let mut sizes = BTreeSet::new();
    let mut kinds = BTreeSet::new();
    for plan in &plans {
        sizes.insert(plan.kinds().len());
        kinds.extend(plan.kinds());
        assert!(
            plan.kinds().iter().any(|kind| !kind.is_operation()),
            "{plan:?}"
        );
        let register = plan.workloads.contains(&Workload::Register);
        assert!(!(register && plan.kinds().contains(&Kind::Replace)));
        for step in &plan.steps {
            let faults = plan.steps.iter().filter(|step| !step.kind.is_operation());
            let at_once =
                faults.filter(|other| other.at_ms <= step.at_ms && step.at_ms < other.ends_ms());
            assert!(at_once.count() <= OVERLAP_MAX, "{plan:?}");
        }
    }
    assert_eq!(kinds.len(), Kind::USUAL.len());
    assert!(sizes.len() > 5, "{sizes:?}");
}

#[test]
fn a_plan_of_given_kinds_has_all_of_them() {
    let kinds = vec![Kind::Kill, Kind::Pause, Kind::Transfer];
    let wanted = Wanted {
        kinds: kinds.clone(),
        all_kinds: true,
        ..wanted()
    };
    let plan = Plan::from_seed(7, &wanted);
    assert_eq!(plan.kinds(), kinds.into_iter().collect());
}

#[test]
fn kinds_that_are_asked_for_are_drawn_beside_the_usual_ones() {
    let wanted = Wanted {
        kinds: Kind::all().collect(),
        ..wanted()
    };
    let mut drawn = BTreeSet::new();
    for seed in 0..200 {
        let plan = Plan::from_seed(seed, &wanted);
        assert_eq!(plan.complaints(), Vec::<String>::new(), "{plan:?}");
        drawn.extend(plan.kinds());
    }
    assert_eq!(drawn, Kind::all().collect());
}

#[test]
fn a_plan_that_cannot_be_carried_out_is_refused() {
    let mut plan = Plan::from_seed(7, &wanted());
    plan.version = 0;
    plan.knobs.taskmanagers = 0;
    plan.workloads.clear();
    assert_eq!(plan.complaints().len(), 3);
    plan.steps[0].at_ms = u64::MAX;
    assert_eq!(plan.complaints().len(), 4);
}

#[test]
fn any_bytes_are_a_plan_or_refused() {
    let plans = (0..3).map(|seed| Plan::from_seed(seed, &wanted()));
    let seeds = plans.map(|plan| serde_json::to_vec(&plan).unwrap());
    let words = [
        "18446744073709551615",
        "-1",
        "1e400",
        "null",
        "\"kill\"",
        "{}",
    ];
    flott_decoders::check!(Seeds::of(seeds).words(words)).for_each(|bytes: &[u8]| {
        let Ok(plan) = flott_decoders::told(serde_json::from_slice::<Plan>(bytes)) else {
            return;
        };
        let json = serde_json::to_vec(&plan).unwrap();
        let again: Plan = serde_json::from_slice(&json).unwrap();
        assert_eq!((again.digest(), &again), (plan.digest(), &plan));
        drop((plan.complaints(), plan.kinds(), plan.ends()));
    });
}
