/*
 * librhonabwy, by which tokens are checked. It brings GnuTLS, curl and Kerberos along, some 4 MiB that a daemon without tokens has no use for: so it is
 * loaded when tokens are set up, and not with the program. For tokens.c alone, which owns what it asks it for.
 */
#pragma once

#include <rhonabwy.h>

#include "base/error.h"

#define VP_JWT_FUNCTIONS(X)                                                                                            \
    X(r_global_init)                                                                                                   \
    X(r_jwk_free)                                                                                                      \
    X(r_jwk_get_property_str)                                                                                          \
    X(r_jwk_key_type)                                                                                                  \
    X(r_jwks_free)                                                                                                     \
    X(r_jwks_get_at)                                                                                                   \
    X(r_jwks_import_from_json_str)                                                                                     \
    X(r_jwks_init)                                                                                                     \
    X(r_jwks_size)                                                                                                     \
    X(r_jwt_advanced_parse)                                                                                            \
    X(r_jwt_free)                                                                                                      \
    X(r_jwt_get_full_claims_json_t)                                                                                    \
    X(r_jwt_get_header_str_value)                                                                                      \
    X(r_jwt_get_sign_alg)                                                                                              \
    X(r_jwt_get_type)                                                                                                  \
    X(r_jwt_init)                                                                                                      \
    X(r_jwt_verify_signature)

/* The functions by their own names; they may be called once vp_jwt_library() has gone well. */
typedef struct VpJwtLibrary {
#define VP_JWT_MEMBER(name) __typeof__(name) *name;
    VP_JWT_FUNCTIONS(VP_JWT_MEMBER)
#undef VP_JWT_MEMBER
} VpJwtLibrary;

/* Loads the library, the first time; it stays until the process ends. FAILED_PRECONDITION, reason LIBRARY_MISSING, if it is not installed. Any thread. */
VpError *vp_jwt_library(VpJwtLibrary *ret_library);
