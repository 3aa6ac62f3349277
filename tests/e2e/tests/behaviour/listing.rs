//! Lists: what an operator may see, page by page.

use dayfly_api::v1;
use dayfly_e2e::cluster::Kind;
use dayfly_e2e::world::{World, as_others_see, leases_of, owned_by, reason};

on_both!(
    leases_are_listed_by_owner_and_page,
    an_operator_sees_its_own_owners_only,
    a_page_token_that_is_not_ours_is_refused,
);

async fn leases_are_listed_by_owner_and_page(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let other = world.team("orders").await.unwrap();
    let pods =
        [world.pod(&team.namespace, "api").await.unwrap(), world.pod(&team.namespace, "api").await.unwrap()];
    let mut issued = Vec::new();
    for pod in [&pods[0], &pods[1], &pods[0], &pods[1], &pods[0]] {
        issued.push(pod.issue(&team.target).await.unwrap().lease.unwrap());
    }
    world.pod(&other.namespace, "api").await.unwrap().issue(&other.target).await.unwrap();

    let admin = world.admin().await.unwrap();
    let all = admin.all_leases(leases_of(&team.owner)).await.unwrap();
    assert_eq!(as_others_see(all), issued, "oldest first");
    let mut paged = Vec::new();
    let mut request = v1::ListLeasesRequest { page_size: 2, ..leases_of(&team.owner) };
    loop {
        let page = admin.leases(request.clone()).await.unwrap();
        assert!(page.leases.len() <= 2, "{} leases in a page of 2", page.leases.len());
        paged.extend(page.leases);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(as_others_see(paged), issued);

    let of =
        |selector| v1::ListLeasesRequest { selector: Some(selector), ..v1::ListLeasesRequest::default() };
    let by_pod = v1::Selector { pod: pods[0].uid.clone(), ..v1::Selector::default() };
    let ids = |leases: &[v1::Lease]| leases.iter().map(|lease| lease.id.clone()).collect::<Vec<_>>();
    let of_pod = admin.all_leases(of(by_pod)).await.unwrap();
    assert_eq!(ids(&of_pod), ids(&[issued[0].clone(), issued[2].clone(), issued[4].clone()]));
    let by_target = v1::Selector { target: team.target.clone(), ..v1::Selector::default() };
    assert_eq!(ids(&admin.all_leases(of(by_target)).await.unwrap()), ids(&issued));
    let neither = v1::Selector { target: other.target.clone(), ..owned_by(&team.owner) };
    assert_eq!(admin.all_leases(of(neither)).await.unwrap(), []);

    let one = v1::Selector { lease: issued[1].id.clone(), ..v1::Selector::default() };
    admin.revoke(one).await.unwrap();
    let active = v1::ListLeasesRequest { active_only: true, ..leases_of(&team.owner) };
    let expected: Vec<_> = issued.iter().filter(|lease| lease.id != issued[1].id).cloned().collect();
    assert_eq!(as_others_see(admin.all_leases(active).await.unwrap()), expected);
    let all = admin.all_leases(leases_of(&team.owner)).await.unwrap();
    assert_eq!(all[1].state(), v1::LeaseState::Revoked);
}

async fn an_operator_sees_its_own_owners_only(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let (mine, theirs) = (world.team("payments").await.unwrap(), world.team("orders").await.unwrap());
    let my_lease =
        world.pod(&mine.namespace, "api").await.unwrap().issue(&mine.target).await.unwrap().lease.unwrap();
    let their_lease = world
        .pod(&theirs.namespace, "api")
        .await
        .unwrap()
        .issue(&theirs.target)
        .await
        .unwrap()
        .lease
        .unwrap();
    let operator = world.operator(&["list", "get"], Some(&mine.owner)).await.unwrap();

    let owners = operator.all_owners().await.unwrap();
    let [owner] = owners.as_slice() else { panic!("{owners:?}") };
    assert_eq!(
        (&owner.name, owner.namespaces.as_slice()),
        (&mine.owner, [mine.namespace.clone()].as_slice())
    );
    assert_eq!((&*owner.cluster, owner.contacts.len()), ("east", 1));

    let unselected = operator.all_leases(v1::ListLeasesRequest::default()).await.unwrap();
    assert_eq!(as_others_see(unselected), std::slice::from_ref(&my_lease));
    for selector in [
        owned_by(&theirs.owner),
        v1::Selector { target: theirs.target.clone(), ..v1::Selector::default() },
        v1::Selector { lease: their_lease.id.clone(), ..v1::Selector::default() },
    ] {
        let request = v1::ListLeasesRequest { selector: Some(selector), ..v1::ListLeasesRequest::default() };
        match operator.all_leases(request).await {
            Ok(leases) => assert_eq!(leases, []),
            Err(refused) => assert_eq!(reason(&refused), "NOT_ALLOWED"),
        }
    }
    assert_eq!(as_others_see([operator.lease(&my_lease.id).await.unwrap()]), std::slice::from_ref(&my_lease));
    let refused = operator.lease(&their_lease.id).await.unwrap_err();
    let unknown = operator.lease("01890a5d-ac96-774b-bcce-b302099a8057").await.unwrap_err();
    assert_eq!((reason(&refused).as_str(), refused.code()), ("NOT_FOUND", unknown.code()));

    let rule = world.admin().await.unwrap().revoke(owned_by(&theirs.owner)).await.unwrap();
    assert_eq!(reason(&operator.revocation(&rule.id).await.unwrap_err()), "NOT_FOUND");
    let nobody = world.operator(&[], None).await.unwrap();
    assert_eq!(reason(&nobody.owners(v1::ListOwnersRequest::default()).await.unwrap_err()), "NOT_ALLOWED");
    assert_eq!(reason(&nobody.leases(v1::ListLeasesRequest::default()).await.unwrap_err()), "NOT_ALLOWED");
    assert_eq!(reason(&nobody.lease(&my_lease.id).await.unwrap_err()), "NOT_FOUND");
}

async fn a_page_token_that_is_not_ours_is_refused(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let admin = world.admin().await.unwrap();
    let leases = |page_size, page_token: &str| {
        let page_token = page_token.to_owned();
        let request = v1::ListLeasesRequest { page_size, page_token, ..v1::ListLeasesRequest::default() };
        let admin = admin.clone();
        async move { admin.leases(request).await.map(drop) }
    };
    for token in ["garbage", "AAAA", "01890a5d-ac96-774b-bcce-b302099a8057"] {
        assert_eq!(reason(&leases(0, token).await.unwrap_err()), "PAGE_TOKEN", "{token}");
        let request = v1::ListOwnersRequest { page_size: 0, page_token: token.to_owned() };
        assert_eq!(reason(&admin.owners(request).await.unwrap_err()), "PAGE_TOKEN", "{token}");
    }
    for size in [-1, 1001] {
        assert_eq!(reason(&leases(size, "").await.unwrap_err()), "INVALID_FIELD", "{size}");
    }
    assert_eq!(reason(&admin.lease("not-an-id").await.unwrap_err()), "INVALID_FIELD");
}
