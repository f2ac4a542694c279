"""Forecasting: distributions of the next numbers of a series, their scores, scaling per series, forecasters."""

from ._direct import DirectForecaster as DirectForecaster
from ._forecaster import Forecast as Forecast
from ._forecaster import ForecasterParams as ForecasterParams
from ._gaussian import Gaussian as Gaussian
from ._head import Head as Head
from ._head import forecast_loss as forecast_loss
from ._negative_binomial import NegativeBinomial as NegativeBinomial
from ._quantiles import Quantiles as Quantiles
from ._recursive import RecursiveForecaster as RecursiveForecaster
from ._scaling import LastValue as LastValue
from ._scaling import MeanScaling as MeanScaling
from ._scaling import Scale as Scale
from ._scaling import Scaling as Scaling
from ._scaling import Standardization as Standardization
from ._scores import crps_from_quantiles as crps_from_quantiles
from ._scores import crps_from_samples as crps_from_samples
from ._scores import pinball as pinball
from ._student_t import StudentT as StudentT
