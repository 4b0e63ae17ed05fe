################################################################################
#
# hksvd
#
################################################################################

HKSVD_LICENSE = MIT or Apache-2.0

# The tree that this one is part of, when it is.
HKSVD_TOP = $(realpath $(HKSVD_PKGDIR)/../../..)

ifeq ($(BR2_aarch64),y)
HKSVD_BINARY = hksvd-aarch64
else ifeq ($(BR2_ARM_CPU_ARMV7A),y)
HKSVD_BINARY = hksvd-armv7
else ifeq ($(BR2_arm),y)
HKSVD_BINARY = hksvd-armv5te
else
HKSVD_BINARY = hksvd-mipsel
endif
ifeq ($(BR2_PACKAGE_HKSVD_MIN),y)
HKSVD_BINARY := $(HKSVD_BINARY)-min
else ifeq ($(BR2_PACKAGE_HKSVD_OPUS),y)
HKSVD_BINARY := $(HKSVD_BINARY)-opus
endif
# The decoder of AAC.
ifeq ($(BR2_PACKAGE_HKSVD_OPUS),y)
HKSVD_LICENSE += and MPL-2.0
endif

ifeq ($(BR2_PACKAGE_HKSVD_CARGO),y)

HKSVD_VERSION = $(call qstrip,$(BR2_PACKAGE_HKSVD_GIT_VERSION))
HKSVD_SITE = $(call qstrip,$(BR2_PACKAGE_HKSVD_GIT))
HKSVD_SITE_METHOD = git
HKSVD_CARGO_BUILD_OPTS = --bin hksvd --no-default-features
ifeq ($(BR2_PACKAGE_HKSVD_OPUS),y)
HKSVD_CARGO_BUILD_OPTS += --features opus
endif
# As the profile for cameras has it: flash is dearer than time.
HKSVD_CARGO_ENV = \
	CARGO_PROFILE_RELEASE_OPT_LEVEL=z \
	CARGO_PROFILE_RELEASE_LTO=fat \
	CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1
define HKSVD_INSTALL_PROGRAM
	$(INSTALL) -D -m 0755 $(@D)/target/$(RUSTC_TARGET_NAME)/$(if $(BR2_ENABLE_DEBUG),debug,release)/hksvd \
		$(TARGET_DIR)/usr/bin/hksvd
endef

else

HKSVD_VERSION = 0.1.0
ifeq ($(BR2_PACKAGE_HKSVD_DOWNLOAD),y)
HKSVD_SITE = $(call qstrip,$(BR2_PACKAGE_HKSVD_SITE))
HKSVD_SOURCE = $(HKSVD_BINARY)
define HKSVD_EXTRACT_CMDS
	cp $(HKSVD_DL_DIR)/$(HKSVD_SOURCE) $(@D)/$(HKSVD_BINARY)
endef
else
HKSVD_SITE = $(or $(call qstrip,$(BR2_PACKAGE_HKSVD_DIST)),$(HKSVD_TOP)/dist)
HKSVD_SITE_METHOD = local
# A local folder has no hashes in Buildroot; the build has left some.
define HKSVD_BUILD_CMDS
	cd $(@D) && grep -E ' [ *]?$(HKSVD_BINARY)$$' SHA256SUMS | sha256sum -c -
endef
endif
# Nothing is compiled.
HKSVD_ADD_TOOLCHAIN_DEPENDENCY = NO
define HKSVD_INSTALL_PROGRAM
	$(INSTALL) -D -m 0755 $(@D)/$(HKSVD_BINARY) $(TARGET_DIR)/usr/bin/hksvd
endef

endif

HKSVD_BOARD = $(call qstrip,$(BR2_PACKAGE_HKSVD_BOARD))
HKSVD_CONFIG = $(if $(HKSVD_BOARD),$(HKSVD_TOP)/board/$(HKSVD_BOARD).json,$(HKSVD_PKGDIR)/files/hksvd.json)

ifeq ($(BR2_PACKAGE_HKSVD_WEBUI),y)
ifeq ($(BR2_PACKAGE_THINGINO_WEBUI),y)
HKSVD_DEPENDENCIES += thingino-webui
endif
define HKSVD_INSTALL_WEBUI
	$(INSTALL) -D -m 0644 $(HKSVD_PKGDIR)/files/www/config-hksvd.html $(TARGET_DIR)/var/www/config-hksvd.html
	$(INSTALL) -D -m 0644 $(HKSVD_PKGDIR)/files/www/a/hksvd.js $(TARGET_DIR)/var/www/a/hksvd.js
	$(INSTALL) -D -m 0755 $(HKSVD_PKGDIR)/files/www/x/json-hksvd.cgi $(TARGET_DIR)/var/www/x/json-hksvd.cgi
	$(INSTALL) -D -m 0644 $(HKSVD_PKGDIR)/files/hksvd.webui.json $(TARGET_DIR)/var/www/a/plugins/hksvd.webui.json
endef
endif

# It may hold the setup code and the login of a camera's stream.
define HKSVD_INSTALL_TARGET_CMDS
	$(HKSVD_INSTALL_PROGRAM)
	$(INSTALL) -D -m 0600 $(HKSVD_CONFIG) $(TARGET_DIR)/etc/hksvd.json
	$(HKSVD_INSTALL_WEBUI)
endef

define HKSVD_INSTALL_INIT_SYSV
	$(INSTALL) -D -m 0755 $(HKSVD_PKGDIR)/files/S98hksvd $(TARGET_DIR)/etc/init.d/S98hksvd
endef

# Not while installing: with a folder for each package, another one's list is not there yet. The init script does the
# same on cameras whose list is older. The last line may lack its end.
define HKSVD_KEEP_OVER_UPGRADES
	if [ -f $(TARGET_DIR)/etc/cfg-backup.list ]; then \
		[ -z "$$(tail -c 1 $(TARGET_DIR)/etc/cfg-backup.list)" ] || echo >>$(TARGET_DIR)/etc/cfg-backup.list; \
		for kept in /etc/hksvd /etc/hksvd.json; do \
			grep -qxF $$kept $(TARGET_DIR)/etc/cfg-backup.list || \
				echo $$kept >>$(TARGET_DIR)/etc/cfg-backup.list || exit 1; \
		done; \
	fi
endef
HKSVD_TARGET_FINALIZE_HOOKS += HKSVD_KEEP_OVER_UPGRADES

ifeq ($(BR2_PACKAGE_HKSVD_CARGO),y)
$(eval $(cargo-package))
else
$(eval $(generic-package))
endif
