//! TokenReview, SubjectAccessReview and trimmed informers of one cluster.
