/* The contract's FileDescriptorSets (with imports), as bytes in the program. See google/protobuf/descriptor.proto. */
#pragma once

#include <stddef.h>

/* Without source_code_info: what the RPC runtime reads at start. */
extern const unsigned char vp_descriptors_bare[];
extern const size_t vp_descriptors_bare_size;

/* With comments: what reflection hands out. */
extern const unsigned char vp_descriptors_commented[];
extern const size_t vp_descriptors_commented_size;
