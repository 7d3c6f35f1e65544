"""Forecasters and risk classifiers: backtest, training, tuning, calibration, model card."""
