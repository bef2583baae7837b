# protobuf-c spells out the package in every C name. These are the short ones: PbDomain, pb_domain__unpack,
# PB_DOMAIN_STATE_RUNNING, PB_DOMAIN__INIT.
s/VIRTPLANE__V1__\([A-Z0-9_]*[A-Z0-9]\)__\1_/PB_\1_/g
s/VIRTPLANE__V1__/PB_/g
s/virtplane__v1__/pb_/g
s/Virtplane__V1__/Pb/g
