include $(sort $(wildcard $(BR2_EXTERNAL_HKSVD_PATH)/package/*/*.mk))
