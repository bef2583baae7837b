/* Run by the build: a contract that cannot be served (a service in no table, a method that does not say who may call it) builds no daemon. */
#include <stdio.h>

#include "server/rpc/contract.h"

int main(void)
{
    g_autoptr(VpError) error = NULL;
    g_autoptr(VpContract) contract = vp_contract_new(&error);

    if (!contract) {
        fprintf(stderr, "%s\n", error->message);
        return 1;
    }
    printf("/* Made by the build: %u methods were checked. */\nextern const unsigned vp_contract_checked;\n"
           "const unsigned vp_contract_checked = %u;\n",
           vp_contract_methods(contract)->len, vp_contract_methods(contract)->len);
    return 0;
}
