//! Generated protobuf of dayfly.v1 and its conversions to core.
