/* A PKCS#11 module for the tests: SoftHSM2 with faults. A file named as a call (C_Initialize, ...) in the directory
 * $SEGL_TEST_FAULTS holds the code, in hexadecimal, that the call answers instead of being made; a file "sessions" the
 * number of sessions there are; a file "C_Sign.length" the length that C_Sign says its signature has. While there is a
 * file "C_Sign.hangs", "C_OpenSession.hangs" or "C_Finalize.hangs", that call does not return, and says that it was
 * entered by a file "CALL.entered". The calls' places in the function list are PKCS#11's own (v2.40, pkcs11f.h). */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long RV;
typedef RV (*Call)(void *, void *, void *, void *, void *);
enum {
    INITIALIZE = 0, FINALIZE = 1, GET_FUNCTION_LIST = 3, OPEN_SESSION = 12, CLOSE_SESSION = 13, SESSION_INFO = 15, LOGIN = 18,
    GET_ATTRIBUTE = 24, SIGN_INIT = 42, SIGN = 43, RANDOM = 64, CALLS = 68
};
struct list { unsigned char version[2]; Call call[CALLS]; };

static struct list real, ours;
static unsigned long sessions;

static int number(const char *name, int base, unsigned long *value) {
    char path[4096], text[64];
    snprintf(path, sizeof path, "%s/%s", getenv("SEGL_TEST_FAULTS"), name);
    FILE *file = fopen(path, "r");
    if (file == NULL) return 0;
    int found = fgets(text, sizeof text, file) != NULL;
    fclose(file);
    if (found) *value = strtoul(text, NULL, base);
    return found;
}

static RV fault(const char *name) {
    unsigned long code = 0;
    number(name, 16, &code);
    return code;
}

static void hang(const char *name) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s.hangs", getenv("SEGL_TEST_FAULTS"), name);
    if (access(path, F_OK) != 0) return;
    char entered[4096];
    snprintf(entered, sizeof entered, "%s/%s.entered", getenv("SEGL_TEST_FAULTS"), name);
    FILE *file = fopen(entered, "w");
    if (file != NULL) fclose(file);
    while (access(path, F_OK) == 0) usleep(1000);
}

static RV finalize(void *a, void *b, void *c, void *d, void *e) {
    RV code = fault("C_Finalize");
    hang("C_Finalize");
    if (code == 0) code = real.call[FINALIZE](a, b, c, d, e);
    if (code == 0) sessions = 0;
    return code;
}

static RV session_info(void *a, void *b, void *c, void *d, void *e) {
    RV code = fault("C_GetSessionInfo");
    return code != 0 ? code : real.call[SESSION_INFO](a, b, c, d, e);
}

static RV random_bytes(void *a, void *b, void *c, void *d, void *e) {
    RV code = fault("C_GenerateRandom");
    return code != 0 ? code : real.call[RANDOM](a, b, c, d, e);
}

static RV initialize(void *a, void *b, void *c, void *d, void *e) {
    RV code = fault("C_Initialize");
    return code != 0 ? code : real.call[INITIALIZE](a, b, c, d, e);
}

static RV open_session(void *a, void *b, void *c, void *d, void *e) {
    RV code = fault("C_OpenSession");
    unsigned long most;
    hang("C_OpenSession");
    if (code == 0 && number("sessions", 10, &most) && sessions >= most) code = 0xb1;
    if (code == 0) code = real.call[OPEN_SESSION](a, b, c, d, e);
    if (code == 0) sessions++;
    return code;
}

static RV close_session(void *a, void *b, void *c, void *d, void *e) {
    RV code = real.call[CLOSE_SESSION](a, b, c, d, e);
    if (code == 0) sessions--;
    return code;
}

static RV login(void *a, void *b, void *c, void *d, void *e) {
    RV code = fault("C_Login");
    return code != 0 ? code : real.call[LOGIN](a, b, c, d, e);
}

static RV sign_init(void *a, void *b, void *c, void *d, void *e) {
    RV code = fault("C_SignInit");
    return code != 0 ? code : real.call[SIGN_INIT](a, b, c, d, e);
}

static RV sign(void *a, void *b, void *c, void *d, void *e) {
    hang("C_Sign");
    RV code = real.call[SIGN](a, b, c, d, e);
    if (code == 0) number("C_Sign.length", 10, e);
    return code;
}

/* Fails for the object whose label is written in the file "poisoned". */
static RV get_attribute(void *a, void *b, void *c, void *d, void *e) {
    char path[4096], wanted[64] = "", label[64] = "";
    struct { unsigned long type; void *value; unsigned long length; } ask = { 3, label, sizeof label - 1 };
    snprintf(path, sizeof path, "%s/poisoned", getenv("SEGL_TEST_FAULTS"));
    FILE *file = fopen(path, "r");
    if (file != NULL) {
        if (fgets(wanted, sizeof wanted, file) == NULL) wanted[0] = 0;
        fclose(file);
        RV code = real.call[GET_ATTRIBUTE](a, b, &ask, (void *)1, NULL);
        if (code == 0 && strcmp(label, wanted) == 0 && (code = fault("C_GetAttributeValue")) != 0) return code;
    }
    return real.call[GET_ATTRIBUTE](a, b, c, d, e);
}

RV C_GetFunctionList(struct list **list) {
    if (real.call[INITIALIZE] == NULL) {
        void *library = dlopen(SOFTHSM, RTLD_NOW | RTLD_LOCAL);
        struct list *found = NULL;
        if (library == NULL) return 6;
        RV code = ((RV (*)(struct list **))dlsym(library, "C_GetFunctionList"))(&found);
        if (code != 0) return code;
        real = ours = *found;
        ours.call[INITIALIZE] = initialize;
        ours.call[FINALIZE] = finalize;
        ours.call[SESSION_INFO] = session_info;
        ours.call[RANDOM] = random_bytes;
        ours.call[GET_FUNCTION_LIST] = (Call)C_GetFunctionList;
        ours.call[OPEN_SESSION] = open_session;
        ours.call[CLOSE_SESSION] = close_session;
        ours.call[LOGIN] = login;
        ours.call[GET_ATTRIBUTE] = get_attribute;
        ours.call[SIGN_INIT] = sign_init;
        ours.call[SIGN] = sign;
    }
    *list = &ours;
    return 0;
}
